# TaskIT's app for a machine of your own; CPU wheels unless built with
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t taskit .
# Run with the runs on a volume (add --gpus all for a GPU):
#   docker run -p 7860:7860 -v taskit-runs:/runs taskit
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 1000 taskit \
    && install --directory --owner taskit --group taskit /runs /app
WORKDIR /app

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt --index-url $TORCH_INDEX torch \
    && pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt

COPY pyproject.toml README.md LICENSE app.py ./
COPY taskit taskit
COPY zoo zoo

USER taskit
ENV HF_HOME=/runs/.cache PYTHONUNBUFFERED=1
VOLUME /runs
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/', timeout=4)"]
CMD ["python", "app.py", "--host", "0.0.0.0", "--runs", "/runs"]
