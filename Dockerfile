# One image with both programs: docker build -t herald .
#
# BuildKit sets BUILDPLATFORM, so the compiler runs on the builder's platform whatever platform is asked for. Docker's
# legacy builder does not set it and refuses an empty platform; "linux" is the builder's own there.
FROM --platform=${BUILDPLATFORM:-linux} golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY cmd cmd
COPY ipam ipam
COPY provider provider
COPY speaker speaker
# The version that the programs report.
ARG VERSION=dev
ARG TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X github.com/heraldlb/herald/cmd/internal/version.release=$VERSION" -o /out/ ./cmd/herald-ccm ./cmd/herald-speaker

# From here on this is also what `make images` builds, from programs that it has.
FROM scratch
LABEL org.opencontainers.image.title="Herald" \
      org.opencontainers.image.description="Load balancer for Kubernetes clusters that have no cloud under them" \
      org.opencontainers.image.source="https://github.com/heraldlb/herald" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/herald-ccm /out/herald-speaker /usr/local/bin/
ENV PATH=/usr/local/bin
# A speaker that answers ARP has to be root: its pod says so.
USER 65532:65532
