# One image for every room; `arcuate serve ROOM` chooses.
FROM python:3.11-slim-bookworm
RUN useradd --system --create-home --uid 10001 arcuate && mkdir /data && chown arcuate /data
WORKDIR /opt/arcuate
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY services services
RUN pip install --no-cache-dir -c constraints.txt .
COPY models models
COPY templates templates
ENV ARCUATE_DATA_DIR=/data ARCUATE_MODELS_DIR=/opt/arcuate/models ARCUATE_TEMPLATES_DIR=/opt/arcuate/templates \
    ARCUATE_LOG_FORM=json ARCUATE_LOG_LEVEL=INFO PYTHONUNBUFFERED=1
USER arcuate
VOLUME /data
ENTRYPOINT ["arcuate"]
CMD ["up"]
