#!/bin/sh
# {{ name }} on this machine, written by `ligr launch`.
{% for variable, value in environment.items() %}
printenv {{ variable }} >/dev/null || export {{ variable }}={{ value | sh }}
{% endfor %}
exec {{ ligr | sh }} {{ sweep | sh }}
