# hemascope without torch, for predicting: 206 MB above the Python base.
#
#   docker build -t hemascope .
#   docker run --rm --read-only --tmpfs /tmp --network none -v "$PWD:/data" \
#     --user "$(id -u):$(id -g)" hemascope predict cells/ --out answers.csv
#
# It writes nothing outside /data and /tmp. The review station, which deploy/ runs:
#
#   docker build -t hemascope-station --build-arg EXTRAS='[serve,postgres]' .

FROM python:3.11-slim AS build
ARG EXTRAS=""
WORKDIR /build
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY src ./src
# The lock holds what training needs as well; of what is installed it only fixes the versions.
RUN python -m venv /opt/hemascope \
    && /opt/hemascope/bin/pip install --no-cache-dir --constraint requirements.lock ".$EXTRAS" \
    && /opt/hemascope/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
COPY --from=build /opt/hemascope /opt/hemascope
ENV PATH="/opt/hemascope/bin:$PATH" PYTHONDONTWRITEBYTECODE=1
RUN useradd --no-create-home --home-dir /tmp --uid 10001 hemascope \
    && install --directory --owner=10001 --group=10001 /data
USER 10001
WORKDIR /data
# Answers a blank picture, so that the model and ONNX Runtime are tried, not only the program.
HEALTHCHECK --interval=60s --timeout=20s --start-period=5s CMD \
    ["python", "-c", "import hemascope, numpy; hemascope.load('hemanet').predict(numpy.full((28, 28, 3), 200, numpy.uint8))"]
ENTRYPOINT ["hemascope"]
CMD ["--help"]
