"""Spark: marts as Parquet in a folder that the cluster shares.

Parquet knows no transaction. A load writes into a folder of its own, and counts once its entry
stands in ``loads``, which one rename puts there: who reads looks at the loads first.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import ibis
import pyarrow as pa

from data.engine import BATCH, Function
from data.errors import CaremodelsError, ContractError, UnavailableError, UsageError

try:
    from py4j.protocol import Py4JError
    from pyspark import StorageLevel
    from pyspark.errors import AnalysisException, ParseException, PySparkException
    from pyspark.sql import SparkSession
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
except ModuleNotFoundError:
    raise UsageError("marts on Spark need the extra: pip install 'caremodels[spark]'") from None

SETTINGS = {
    "spark.log.level": "ERROR",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # Times are the site's wall clock: no zone may move them.
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH),
}
WRITTEN = 4 * BATCH
"""Rows that the driver gathers before it hands them to the workers."""
LOG4J = Path(__file__).with_name("log4j2.properties")
LOADING = "_loading"
"""Folder of work that is not finished; Spark's own readers pass over names that begin so."""


class Spark:
    """A session on a cluster, and the folder with the marts."""

    def __init__(self, session: SparkSession, folder: str, *, own: bool) -> None:
        self._spark = session
        self._own = own
        self._db = ibis.pyspark.connect(session)
        self._files = _Files(session, folder)
        self._staged: set[str] = set()
        self._waiting: dict[str, list[pa.Table]] = {}
        self._work: str | None = None

    def tables(self) -> list[str]:
        committed = set(self._files.children("loads"))
        return [
            name
            for name in self._files.children("")
            if not name.startswith("_") and committed & set(self._files.children(name))
        ]

    def table(self, name: str) -> Any:
        if name in self._staged:
            self._flush(name)
            paths = [self._files.path(self._work, name)]
        else:
            committed = set(self._files.children("loads")) & set(self._files.children(name))
            paths = [self._files.path(name, load) for load in sorted(committed)]
        self._spark.read.parquet(*paths).createOrReplaceTempView(name)
        return self._db.table(name)

    @contextmanager
    def transaction(self, name: str) -> Iterator[None]:
        self._work = f"{LOADING}/{name}"
        self._files.remove(self._work)
        try:
            with _told():
                yield
                for table in list(self._waiting):
                    self._flush(table)
                children = self._files.children(self._work)
                written = [table for table in children if table not in self._staged]
                for table in sorted(written, key=lambda table: table == "loads"):  # the loads come last
                    self._files.remove(f"{table}/{name}")
                    self._files.move(f"{self._work}/{table}", f"{table}/{name}")
        finally:
            self._files.remove(self._work)
            self._work = None
            self._staged.clear()
            self._waiting.clear()

    def stage(self, name: str, schema: pa.Schema) -> None:
        self._staged.add(name)
        self.append(name, schema.empty_table())

    def append(self, name: str, rows: pa.Table) -> None:
        # Each write is a job of a second or more: many small batches go together.
        waiting = self._waiting.setdefault(name, [])
        waiting.append(rows)
        if sum(map(len, waiting)) >= WRITTEN:
            self._flush(name)

    def insert(self, name: str, rows: Any, *, asked_by: str | None = None) -> None:
        del asked_by  # Parquet keeps the least and largest value of every stretch of rows
        self._write(name, self._spark.sql(self._sql(rows)))

    def rows(self, sql: str) -> Iterator[pa.Table]:
        with _told():
            yield from self._fetched(self._spark.sql(sql))

    def batches(self, rows: Any) -> Iterator[pa.Table]:
        return self.rows(self._sql(rows))

    def mapped(self, rows: Any, function: Function, schema: pa.Schema) -> Iterator[pa.Table]:
        def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                yield from function(pa.Table.from_batches([batch])).cast(schema).to_batches()

        with _told():
            frame = self._spark.sql(self._sql(rows)).mapInArrow(work, from_arrow_schema(schema))
            # Fetching walks the partitions one by one: the work is done before, by all workers at once.
            done = frame.persist(StorageLevel.DISK_ONLY)
            try:
                done.count()
                yield from self._fetched(done)
            finally:
                done.unpersist()

    def close(self) -> None:
        if self._own:
            self._spark.stop()

    def _sql(self, rows: Any) -> str:
        return str(ibis.to_sql(rows, dialect="pyspark"))

    def _flush(self, name: str) -> None:
        if waiting := self._waiting.pop(name, None):
            self._write(name, self._spark.createDataFrame(pa.concat_tables(waiting)))

    def _write(self, name: str, frame: Any) -> None:
        frame.write.mode("append").parquet(self._files.path(self._work, name))

    def _fetched(self, frame: Any) -> Iterator[pa.Table]:
        """The rows as Arrow, a partition at a time: the driver never holds them all."""
        some = False
        for row in frame.mapInArrow(_packed, "ipc binary").toLocalIterator(prefetchPartitions=True):
            some = True
            yield _nullable(pa.ipc.open_stream(row.ipc).read_all())
        if not some:
            yield _nullable(to_arrow_schema(frame.schema).empty_table())


class _Files:
    """The shared folder, through Hadoop's own client: a disk, HDFS or an object store."""

    def __init__(self, session: SparkSession, folder: str) -> None:
        java: Any = session._jvm  # noqa: SLF001 the only way to it
        self._path = java.org.apache.hadoop.fs.Path
        self._root = folder.rstrip("/")
        configuration = session._jsc.hadoopConfiguration()  # noqa: SLF001
        self._system = self._path(self._root + "/").getFileSystem(configuration)

    def path(self, *parts: str | None) -> str:
        return "/".join([self._root, *(part for part in parts if part)])

    def children(self, place: str | None) -> list[str]:
        """Names of the folders in ``place``; none where it is not there."""
        path = self._path(self.path(place))
        if not self._system.exists(path):
            return []
        return sorted(
            status.getPath().getName()
            for status in self._system.listStatus(path)
            if status.isDirectory()
        )

    def remove(self, place: str) -> None:
        self._system.delete(self._path(self.path(place)), True)

    def move(self, source: str, target: str) -> None:
        place = self._path(self.path(target))
        self._system.mkdirs(place.getParent())
        if not self._system.rename(self._path(self.path(source)), place):
            raise CaremodelsError(f"the marts on Spark: {target} cannot be put in its place")


@contextmanager
def _told() -> Iterator[None]:
    """Spark's messages quote cells, but for those about names."""
    try:
        yield
    except (AnalysisException, ParseException) as error:
        raise ContractError(f"the query does not fit: {str(error).splitlines()[0]}") from None
    except (PySparkException, Py4JError) as error:
        raise CaremodelsError(f"the query failed in Spark ({type(error).__name__})") from None


def _nullable(table: pa.Table) -> pa.Table:
    """Spark marks a column that a filter holds to a value as never null; other engines do not."""
    return table.cast(pa.schema([(field.name, field.type) for field in table.schema]))


def _packed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield pa.record_batch({"ipc": pa.array([sink.getvalue().to_pybytes()], pa.binary())})


def connect(url: str, *, write: bool) -> Spark:
    """A session on the cluster spark://MASTER:PORT, and the marts in the folder behind it.

    The folder is the path of the URL, or ``?folder=`` for one on HDFS or an object store.
    """
    del write  # the folder's own rights decide
    place = urlsplit(url)
    folder = parse_qs(place.query).get("folder", [place.path])[0]
    if not place.hostname or not place.port or not folder.strip("/"):
        raise UsageError("spark://MASTER:PORT/FOLDER: master, port and folder are needed")
    own = SparkSession.getActiveSession() is None
    return Spark(session(f"spark://{place.hostname}:{place.port}"), folder, own=own)


def session(master: str) -> SparkSession:
    """A session on the cluster ``master``, or the one that this process has already."""
    place = urlsplit(master)
    _reach(place.hostname or "", place.port or 0)
    # The workers run the same interpreter as the driver, with the same packages.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {**SETTINGS, "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG4J}"}
    if place.hostname in ("127.0.0.1", "localhost"):
        settings |= {"spark.driver.host": place.hostname, "spark.driver.bindAddress": "127.0.0.1"}
    builder = SparkSession.builder.master(master).appName("caremodels")
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except Exception as error:  # noqa: BLE001 whatever Java throws
        raise UnavailableError(f"no Spark session on {place.netloc}: {type(error).__name__}") from None


def _reach(host: str, port: int) -> None:
    """Spark itself would try for minutes."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        raise UnavailableError(f"the Spark master {host}:{port} cannot be reached") from None
