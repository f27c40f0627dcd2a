"""Taobao display advertisements (Alibaba, Tianchi data set 56): impressions of 6 to 13 May 2017.

Reads CSV files:

    raw_sample.csv      user, time_stamp (seconds), adgroup_id, pid, nonclk, clk: impressions
    ad_feature.csv      adgroup_id, cate_id, campaign_id, customer, brand, price
    user_profile.csv    userid and eight features (optional)

`behavior_log.csv` is not read: its 723M events (views, carts, favourites, purchases) have the
category and the brand of a product, and no advertisement, so they are no labels of an impression.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from ligr_jax.data.schema import Column, LogSchema
from ligr_jax.data.sources.adapter import Adapter, missing_columns, require_complete
from ligr_jax.data.sources.files import (
    DataFile,
    describe_files,
    file_parts,
    read_column,
    read_items,
    rows_in,
)
from ligr_jax.data.sources.id_table import IdTable
from ligr_jax.data.sources.parse import with_types
from ligr_jax.data.sources.parts import chained, converted
from ligr_jax.data.sources.period import Period
from ligr_jax.data.sources.rules import OR_SKIP
from ligr_jax.data.sources.source import ROW_DIGEST, Fault, ItemSource, LogBatch, LogSource
from ligr_jax.data.sources.text_options import TextOptions

URL = "https://tianchi.aliyun.com/dataset/56"
TITLE = "Taobao display ads"
PERIOD = Period(TITLE, "2017-05-05", "2017-05-13")
UTC_PLUS_8_MS = 8 * 3_600_000
SCAN_ROWS = 1 << 20
USER = {
    "cms_segid": "user_segment",
    "cms_group_id": "user_group",
    "final_gender_code": "user_gender",
    "age_level": "user_age_level",
    "pvalue_level": "user_consumption_level",
    "shopping_level": "user_shopping_level",
    "occupation": "user_student",
    "new_user_class_level": "user_city_level",
}
AD = {
    "adgroup_id": "item_id",
    "customer": "actor_id",
    "cate_id": "category",
    "campaign_id": "campaign",
    "brand": "brand",
    "price": "price",
}
TABLES = {
    "raw_sample.csv": ("user", "time_stamp", "adgroup_id", "pid", "nonclk", "clk"),
    "ad_feature.csv": tuple(AD),
    "user_profile.csv": ("userid", *USER),
}
OPTIONAL = "user_profile.csv"
NOTES = (
    "behavior_log.csv is not read: its events have a category and no advertisement, so purchases "
    "are not labels of an impression",
    "users and advertisements are a snapshot without a date",
)


def taobao_ads_marks(directory: Path) -> list[str] | None:
    """Return what a directory lacks to be the Taobao data set.

    Returns:
        A message for every missing file or column; None if there are no impressions.
    """
    if not (directory / "raw_sample.csv").is_file():
        return None
    lacking = []
    for name, columns in TABLES.items():
        if (directory / name).is_file():
            lacking += missing_columns(_file(directory, name), columns, TITLE)
        elif name != OPTIONAL:
            lacking.append(f"{directory} lacks {name}; download it from {URL}")
    return lacking


def taobao_ads_source(directory: Path) -> LogSource:
    """Open the Taobao data set.

    Args:
        directory: directory of the files.

    Raises:
        BadInput: a file or a column is missing, or the times are not those of the data set.
    """
    require_complete(
        taobao_ads_marks(directory),
        f"{directory} lacks raw_sample.csv; download it from {URL}",
    )
    log, ads = (_file(directory, name) for name in ("raw_sample.csv", "ad_feature.csv"))
    PERIOD.require(
        read_column(log, "time_stamp", SCAN_ROWS), "s", f"{log.path}, column 'time_stamp'"
    )
    users = _users(_file(directory, OPTIONAL)) if (directory / OPTIONAL).is_file() else None
    parts = tuple(converted(part, partial(_impressions, users=users)) for part in file_parts(log))
    names = ("item_id", "surface", "hour", *AD.values(), *(USER.values() if users else ()))
    columns = {n: Column("numeric" if n == "price" else "categorical") for n in names}
    used = [log, ads, *([_file(directory, OPTIONAL)] if users else [])]
    return LogSource(
        name=TITLE,
        schema=LogSchema(("click",), columns, notes=NOTES),
        batches=chained(parts),
        rows=rows_in(log),
        description={"format": "taobao_ads", "files": describe_files(used)},
        items=ItemSource([*AD.values()], partial(_ads, ads)),
        names={"member_id": "user", "timestamp_ms": "time_stamp", "item_id": "adgroup_id"},
        parts=parts,
    )


def _impressions(batch: LogBatch, users: IdTable | None) -> LogBatch:
    names = ("user", "time_stamp", "adgroup_id", "nonclk", "clk")
    batch = with_types(batch, dict.fromkeys(names, pl.Int64))
    frame = batch.frame
    rule = f"contradicts clk: one of clk and nonclk is 1, the other 0{OR_SKIP}"
    contradiction = (frame["clk"] + frame["nonclk"] != 1).fill_null(False)
    fault = Fault("nonclk", contradiction.to_numpy(), frame["nonclk"], rule)
    time_ms = pl.col("time_stamp") * 1000
    frame = frame.select(
        ROW_DIGEST,
        *(users.find(frame["user"]) if users else ()),
        member_id="user",
        timestamp_ms=time_ms,
        item_id="adgroup_id",
        surface="pid",
        hour=(time_ms + UTC_PLUS_8_MS) // 3_600_000 % 24,
        click="clk",
    )
    return replace(batch, frame=frame, faults=(*batch.faults, fault))


def _ads(file: DataFile) -> Iterator[LogBatch]:
    for batch in read_items(file):
        typed = with_types(
            batch, {name: pl.Float64 if name == "price" else pl.Int64 for name in AD}
        )
        yield replace(typed, frame=typed.frame.select(*AD).rename(AD))


def _users(file: DataFile) -> IdTable:
    names = {"userid": pl.Int64, **dict.fromkeys(USER, pl.Int64)}
    table = IdTable.of((with_types(b, names) for b in read_items(file)), "userid", tuple(USER))
    return IdTable(table.ids, table.columns.rename(USER))


def _file(directory: Path, name: str) -> DataFile:
    return DataFile(directory / name, name, reading=TextOptions(",", null_values=("NULL",)))


TAOBAO_ADS = Adapter(
    name="taobao_ads",
    title="Taobao display advertisements (Alibaba, 2017)",
    open=taobao_ads_source,
    lacking=taobao_ads_marks,
    files={
        "raw_sample.csv": "impressions of 6 to 13 May 2017 (UTC+8)",
        "ad_feature.csv": "advertisements",
        "user_profile.csv": "users (optional)",
    },
    impression="an advertisement shown to a user",
    session="a pause (--session-gap)",
    actions="clk",
    outcomes="none",
    refused="behavior_log.csv: its events have a category and no advertisement",
    obtain=f"{URL} (terms of Tianchi)",
)
