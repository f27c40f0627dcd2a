"""Miniatures of public data sets in the exact layout of their files, and options that read them."""

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

Write = str | bytes | Callable[[Path], object]


@dataclass(frozen=True)
class PublicFile:
    """A file as people have it.

    Attributes:
        name: name of the file.
        content: text, bytes, or a function that writes the file.
        options: options of `ligr prepare`.
        rows, members: impressions and members that are expected.
        positives: number of positive labels of each action.
        first: time of the first impression.
        features: values of a column of the first row of the first member.
    """

    name: str
    content: Write
    options: str
    rows: int
    members: int
    positives: Mapping[str, int]
    first: str
    features: Mapping[str, object] = field(default_factory=dict)

    @property
    def first_ms(self) -> int:
        """Time of the first impression, milliseconds since 1970."""
        return round(datetime.fromisoformat(self.first).replace(tzinfo=UTC).timestamp() * 1000)


def lines(*rows: object) -> str:
    """Return JSON lines, or lines of text."""
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def packed(*rows: object) -> bytes:
    return gzip.compress(lines(*rows).encode())


def ebnerd(path: Path) -> None:
    pl.DataFrame(
        {
            "impression_id": [48401, 48402, 48403],
            "article_id": [None, 9778661, None],
            "impression_time": [datetime(2023, 5, 21, 21, 6, k) for k in (50, 51, 52)],
            "read_time": [21.0, 30.5, 4.0],
            "article_ids_inview": [[9774516, 9771051, 9770028], [9778682, 9778669], [9774516]],
            "article_ids_clicked": [[9770028], [9778669, 9778682], [9774516]],
            "user_id": [22779, 150224, 22779],
            "session_id": [21, 298, 21],
        },
        schema_overrides={
            "article_ids_inview": pl.List(pl.Int32),
            "article_ids_clicked": pl.List(pl.Int32),
        },
    ).write_parquet(path)


PUBLIC_FILES: dict[str, PublicFile] = {
    "MovieLens 100K": PublicFile(
        "u.data",
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t377\t4\t881250950\n",
        "--column-names member_id,item_id,rating,timestamp_ms --label 'like=rating>=4'",
        3, 2, {"like": 1}, "1997-12-04T15:55:49",
    ),
    "MovieLens 1M": PublicFile(
        "ratings.dat",
        "1::1193::5::978300760\n1::661::3::978302109\n2::1357::5::978298709\n",
        "--delimiter :: --column-names user,movie,rating,time --label 'like=rating>=4' "
        "--map member_id=user item_id=movie timestamp_ms=time",
        3, 2, {"like": 2}, "2000-12-31T21:38:29",
    ),
    "Amazon Reviews 2023": PublicFile(
        "All_Beauty.jsonl.gz",
        packed(
            {"rating": 5.0, "title": "Such a lovely scent", "text": "a\nb", "images": [],
             "asin": "B00YQ6X8EO", "parent_asin": "B00YQ6X8EO", "user_id": "AGKHLEW2SOWHNMFQIJ",
             "timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": True},
            {"rating": 2.0, "title": "", "text": "", "images": [{"small_image_url": "x"}],
             "asin": "B081TJ8YS3", "parent_asin": "B081TJ8YS3", "user_id": "AGKHLEW2SOWHNMFQIJ",
             "timestamp": 1588615855070, "helpful_vote": 1, "verified_purchase": False},
        ),
        "--map member_id=user_id item_id=parent_asin timestamp_ms=timestamp "
        "--label 'like=rating>=4' --categorical verified_purchase --outcome helpful_vote",
        2, 1, {"like": 1}, "2020-05-04T18:10:55.070", {"verified_purchase": 0},
    ),
    "MIND": PublicFile(
        "behaviors.tsv",
        "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0\n"
        "2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678-0 N39317-0 N58114-1\n",
        "--column-names impression_id,member_id,timestamp_ms,history,impressions --actions click "
        "--explode impressions={item_id}-{click} --separator ' ' --bag history "
        "--time-format '%m/%d/%Y %I:%M:%S %p'",
        5, 2, {"click": 2}, "2019-11-11T09:05:58",
    ),
    "EB-NeRD": PublicFile(
        "behaviors.parquet",
        ebnerd,
        "--explode article_ids_inview --label 'click=article_ids_clicked contains item_id' "
        "--map item_id=article_ids_inview member_id=user_id timestamp_ms=impression_time "
        "--outcome read_time",
        6, 2, {"click": 4}, "2023-05-21T21:06:50", {"read_time": 21.0},
    ),
    "RetailRocket": PublicFile(
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"
        "1433224214164,992329,view,248676,\n1433222276276,257597,transaction,356475,4000\n",
        "--map member_id=visitorid item_id=itemid timestamp_ms=timestamp "
        "--label cart=event==addtocart --label 'buy=transactionid is not null'",
        3, 2, {"cart": 0, "buy": 1}, "2015-06-02T05:02:12.117",
    ),
    "YooChoose": PublicFile(
        "yoochoose-clicks.dat",
        "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n",
        "--column-names session_id,timestamp_ms,item_id,category --map member_id=session_id "
        "--label offer=category==S",
        2, 1, {"offer": 1}, "2014-04-07T10:51:09.277",
    ),
    "Diginetica": PublicFile(
        "train-item-views.csv",
        "sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n"
        "1;NA;31331;1031018;2016-05-09\n2;NA;32118;243569;2016-05-10\n",
        "--map member_id=sessionId item_id=itemId timestamp_ms=eventdate --null-values NA "
        "--label 'view=itemId is not null'",
        3, 2, {"view": 3}, "2016-05-09T00:00:00",
    ),
    "Avazu": PublicFile(
        "train.gz",
        packed(
            "id,click,hour,C1,banner_pos,site_id,device_id,device_ip,C14",
            "1000009418151094273,0,14102100,1005,0,1fbe01fe,a99f214a,ddd2926e,15706",
            "10000169349117863715,1,14102101,1005,0,1fbe01fe,a99f214a,96809ac8,15704",
        ),
        "--map member_id=device_id item_id=C14 timestamp_ms=hour --actions click "
        "--categorical banner_pos,site_id --time-format %y%m%d%H",
        2, 1, {"click": 1}, "2014-10-21T00:00:00", {"banner_pos": 0},
    ),
    "Taobao UserBehavior": PublicFile(
        "UserBehavior.csv",
        "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n"
        "2,2576651,149192,fav,1511572885\n",
        "--column-names member_id,item_id,category,behavior,timestamp_ms --categorical category "
        "--label buy=behavior==buy --label 'save=behavior in fav|cart'",
        3, 2, {"buy": 1, "save": 1}, "2017-11-24T17:21:10", {"category": 2520377},
    ),
    "Last.fm 1K": PublicFile(
        "userid-timestamp-artid-artname-traid-traname.tsv",
        'user_000001\t2009-05-04T23:08:57Z\tf1b1cf71\tDeep Dish\t\tIntro (Live 2009)\n'
        'user_000001\t2009-05-04T13:54:10Z\ta7f7df4a\t坂本龍一\t4fd9c2b5\t"Composition 0919\n',
        "--column-names member_id,timestamp_ms,actor_id,artist,track_id,item_id --no-quotes "
        "--label 'play=item_id is not null'",
        2, 1, {"play": 2}, "2009-05-04T13:54:10",
    ),
    "LFM-1b": PublicFile(
        "LFM-1b_LEs.txt",
        "31435741\t2\t4\t4\t1385212958\n31435741\t2\t4\t4\t1385212642\n",
        "--column-names member_id,actor_id,album,item_id,timestamp_ms --categorical album "
        "--label 'play=item_id is not null'",
        2, 1, {"play": 2}, "2013-11-23T13:17:22", {"album": 4},
    ),
    "Steam reviews": PublicFile(
        "steam_reviews.csv",
        ",app_id,review,timestamp_created,recommended,author.steamid,author.playtime_forever\n"
        '0,292030,"不玩此生遗憾,\nRPG里的天花板",1611381629,True,76561199095369542,1909.0\n'
        '1,292030,"",1611381030,False,76561198949504115,2764.0\n',
        "--map member_id=author.steamid item_id=app_id timestamp_ms=timestamp_created "
        "like=recommended --actions like --outcome author.playtime_forever",
        2, 2, {"like": 1}, "2021-01-23T05:50:30",
    ),
    "Goodreads": PublicFile(
        "goodreads_interactions_poetry.json.gz",
        packed(
            {"user_id": "8842281e", "book_id": "1384", "review_id": "1bad", "is_read": True,
             "rating": 4, "review_text_incomplete": "",
             "date_added": "Wed May 09 09:33:44 -0700 2007", "read_at": ""},
            {"user_id": "8842281e", "book_id": "1376", "review_id": "eb6e", "is_read": False,
             "rating": 0, "review_text_incomplete": "",
             "date_added": "Wed May 09 09:33:18 -0700 2007", "read_at": ""},
        ),
        "--map member_id=user_id item_id=book_id timestamp_ms=date_added read=is_read "
        "--actions read --label 'like=rating>=4' --time-format '%a %b %d %H:%M:%S %z %Y'",
        2, 1, {"read": 1, "like": 1}, "2007-05-09T16:33:18",
    ),
    "Yelp": PublicFile(
        "yelp_academic_dataset_review.json",
        lines(
            {"review_id": "KU_O5u", "user_id": "mh_-eM", "business_id": "XQfwVw", "stars": 3.0,
             "useful": 0, "funny": 0, "cool": 0, "text": '{"a"}', "date": "2018-07-07 22:09:11"},
            {"review_id": "BiTunyQ", "user_id": "OyoGAe", "business_id": "7ATYjT", "stars": 5.0,
             "useful": 1, "funny": 0, "cool": 1, "text": "I've", "date": "2012-01-03 15:28:18"},
        ),
        "--map member_id=user_id item_id=business_id timestamp_ms=date --label 'like=stars>=4'",
        2, 2, {"like": 1}, "2012-01-03T15:28:18",
    ),
    "OTTO": PublicFile(
        "train.jsonl",
        lines(
            {"session": 12899779, "events": [
                {"aid": 59625, "ts": 1661724000278, "type": "clicks"},
                {"aid": 1142000, "ts": 1661724058352, "type": "orders"}]},
            {"session": 12899780, "events": [
                {"aid": 582732, "ts": 1661724000378, "type": "carts"}]},
        ),
        "--explode events --map member_id=session item_id=events.aid timestamp_ms=events.ts "
        "--label cart=events.type==carts --label order=events.type==orders",
        3, 2, {"cart": 1, "order": 1}, "2022-08-28T22:00:00.278",
    ),
    "Open Bandit": PublicFile(
        "men.csv",
        ",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0\n"
        "0,2019-11-24 00:00:05.041179+00:00,29,1,0,0.02941176,cef3390e,0.0\n"
        "1,2019-11-24 00:00:10.036410+00:00,13,2,1,0.02941176,cef3390e,1.0\n",
        "--map member_id=1 timestamp_ms=timestamp --actions click --numeric user-item_affinity_0 "
        "--categorical position,user_feature_0",
        2, 2, {"click": 1}, "2019-11-24T00:00:05.041", {"position": 1},
    ),
    "KuaiRec": PublicFile(
        "small_matrix.csv",
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        "14,148,4381,6067,2020-07-05 05:27:48.378,20200705,1593898068.378,0.722103180\n"
        "14,183,11635,6100,2020-07-05 05:28:00.057,20200705,1593898080.057,1.907377049\n"
        "14,3649,22422,10867,,,,2.063311\n",
        "--map member_id=user_id item_id=video_id timestamp_ms=timestamp --on-bad-row skip "
        "--label 'view=watch_ratio>=1' --numeric video_duration --outcome play_duration",
        2, 1, {"view": 1}, "2020-07-04T21:27:48.378", {"video_duration": 6067.0},
    ),
    "Tenrec": PublicFile(
        "QK-video.csv",
        "user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age\n"
        "1,7,1,0,0,0,0,1,1,2\n2,9,0,0,0,0,1,0,1,2\n1,8,0,0,0,0,1,0,1,2\n",
        "--no-times --map member_id=user_id --actions click,like --categorical video_category "
        "--outcome watching_times",
        3, 2, {"click": 1, "like": 0}, "1970-01-01T00:00:00", {"item_id": 7},
    ),
}  # fmt: skip

# Files that no option makes a log, and the message that says why.
REFUSED: dict[str, tuple[str, Write, str, str]] = {
    "Netflix": (
        "combined_data_1.txt",
        "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n",
        "--column-names member_id,rating,timestamp_ms --label 'like=rating>=4'",
        r"its first line has 1 fields .* there are 3 column names",
    ),
    "Criteo": (
        "train.txt",
        "0\t1\t1\t5\t0\t68fd1e64\n1\t2\t0\t44\t1\t68fd1e65\n",
        "--no-header --map click=1 --actions click",
        r"columns are \['1', '2', .* missing: member_id, timestamp_ms, item_id",
    ),
    "Book-Crossing": (
        "BX-Book-Ratings.csv",
        '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"276726";"0155061224";"5"\n',
        "--map member_id=User-ID item_id=ISBN --label 'like=Book-Rating>=6' --encoding latin-1",
        r"columns are \['User-ID', 'ISBN', 'Book-Rating'\]; missing: timestamp_ms.* or --no-times",
    ),
    "Jester": (
        "jester-data-1.csv",
        "74,-7.82,8.79,99\n100,4.08,-0.29,6.36\n",
        "--no-header --null-values 99 --label 'like=2>0'",
        r"columns are \['1', '2', .* missing: member_id, timestamp_ms, item_id",
    ),
}


def write(path: Path, content: Write) -> Path:
    """Write a file and return its path."""
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
