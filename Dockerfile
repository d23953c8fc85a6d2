# The pinned packages and histo-mlflow itself; runs, models and tiles lie in the folder mounted at /work (docs/install.md).
FROM python:3.11.7-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    HOME=/work \
    HISTO_CACHE_DIR=/work/.cache/histo-mlflow

# Git: runs note the commit of the code. libgomp: what torch and scikit-learn share work with.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/histo-mlflow

# First what changes seldom: a change of the code does not fetch torch again.
COPY requirements.txt ./
RUN pip install --no-cache-dir "$(grep -o '^uv==[^ ]*' requirements.txt)" \
    && uv pip install --system --no-cache --compile-bytecode --requirements requirements.txt

COPY pyproject.toml README.md LICENSE ./
COPY histo_mlflow ./histo_mlflow
COPY tuning ./tuning
RUN uv pip install --system --no-cache --no-deps . \
    && useradd --create-home --home-dir /work --uid 1000 histo

USER 1000
WORKDIR /work

ENTRYPOINT ["histo"]
CMD ["--help"]
