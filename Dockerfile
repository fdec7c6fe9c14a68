# The image in which .github/workflows/notebooks.yml runs the notebooks on a GPU; on a computer of one's own:
#
#   docker build --tag kdkit --build-arg COMMIT=$(git rev-parse HEAD) .
#   docker run --rm --gpus all --ipc=host -v $PWD/runs:/work/runs -v ~/.cache/kdkit:/cache kdkit report --profile colab
#
# The wheels of torch bring CUDA with them: the host needs only the NVIDIA driver and the NVIDIA container toolkit, and no
# image of CUDA is needed. Without a GPU leave --gpus out.
FROM python:3.11-slim-bookworm

WORKDIR /kit
COPY pyproject.toml constraints.txt ./
# dependencies first: their layer stays while only the kit changes
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print('\n'.join(p['dependencies'] + p['optional-dependencies']['decoding']))" > requirements.txt \
    && pip install --no-cache-dir --requirement requirements.txt --constraint constraints.txt
COPY README.md LICENSE ./
COPY kdkit kdkit
COPY notebooks notebooks
RUN pip install --no-cache-dir --no-deps .

# git does not come along: the report says which commit this is by KDKIT_COMMIT
ARG COMMIT=""
ENV KDKIT_COMMIT=$COMMIT KDKIT_CACHE=/cache
WORKDIR /work
ENTRYPOINT ["kdkit"]
CMD ["--help"]
