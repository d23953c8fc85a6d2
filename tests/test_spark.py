"""The registered model scores a table of encoded tiles on a local Spark with two workers."""

import io
import shutil
import sys
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from tests.colour_reader import CLASSES, register


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_spark_says_what_predict_says(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyspark = pytest.importorskip("pyspark.sql", reason="install it: python -m pip install -e '.[spark]'")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java 17")
    register(0.0)
    tiles = np.random.default_rng(0).integers(0, 256, (23, 32, 32, 3), dtype=np.uint8)
    rows = []
    for k, tile in enumerate(tiles):
        file = io.BytesIO()
        Image.fromarray(tile).save(file, "PNG")
        rows.append((k, file.getvalue()))
    for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        monkeypatch.setenv(name, sys.executable)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builder = pyspark.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        spark = builder.config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
        try:
            table = spark.createDataFrame(rows, ["tile", "image"]).repartition(4)
            score = mlflow.pyfunc.spark_udf(spark, "models:/histo-b3/Production", env_manager="local")
            scored = table.select("tile", score("image").alias("said")).select("tile", "said.*").toPandas()
        finally:
            spark.stop()
    scored = scored.sort_values("tile")
    expected = mlflow.pyfunc.load_model("models:/histo-b3/Production").predict(tiles)
    assert scored["label"].tolist() == expected["label"].tolist()
    names = [f"prob_{name}" for name in CLASSES]
    np.testing.assert_allclose(scored[names], expected[names], atol=1e-6)
