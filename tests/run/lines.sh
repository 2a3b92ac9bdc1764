# The lines that `make run` prints, each with its exit code and a fragment of its answer. run.sh defines `line`.
# The grpcurl lines at the head of the .proto files are added by run.sh itself.
# shellcheck shell=bash disable=SC2016

line 0 'in sync everywhere' \
    'lockstep status'
line 0 '"in_sync":true' \
    'lockstep status --output json'
line 0 'CLOCK' \
    'lockstep server ls'
line 0 'FENCE' \
    'lockstep clock'
line 0 'repository/README.md' \
    'lockstep file ls repository/ --all'
line 0 '"state":"ACTIVE"' \
    'lockstep file get repository/README.md --output json'
line 0 'verified on 3 of 3 servers' \
    'lockstep file why repository/README.md'
line 0 'COMPLETED' \
    'lockstep sync repository/ --wait'
line 0 '"state":"COMPLETED"' \
    'lockstep sync ls --output json'
line 0 'on: they are copied' \
    'lockstep settings set --firmware-synchronization on'
line 0 'no sources' \
    'lockstep firmware check'
line 0 'no updates' \
    'lockstep firmware ls'
line 0 'no updates' \
    'lockstep firmware status'
line 0 'updates.example.com' \
    'lockstep server edit s2 --site north --public-address updates.example.com --public-https-port 443'
line 0 'https://' \
    'lockstep resolve repository/README.md --server s1 --device d1 --site north --explain'
line 0 'complete' \
    'lockstep completion bash'
line 0 'in sync on every server' \
    'lockstep file register README.md docs/README.md --server s2 --wait'
line 1 'FILE_EXISTS' \
    'lockstep file register Makefile docs/README.md --server s3'
line 0 'deleted docs/README.md' \
    'lockstep file rm docs/README.md --revision current --server s2'
line 1 'FILE_NOT_FOUND' \
    'lockstep file get docs/README.md'
line 64 '--revision' \
    'lockstep file rm repository/README.md --server s1'
line 0 'lockstep.filesync.v1.FileService' \
    'grpcurl $TLS localhost:7443 list'
line 0 '"SERVING"' \
    'grpcurl $TLS localhost:7443 grpc.health.v1.Health/Check'
line 0 '"STATE_READY"' \
    'grpcurl $TLS localhost:7443 lockstep.gateway.v1.MatrixService/ListServers'
line 0 '"STATE_IN_SYNC"' \
    'grpcurl $TLS -d '\''{"path_prefix":"repository/README.md"}'\'' localhost:7443 lockstep.gateway.v1.MatrixService/ListRows'
line 0 '"originServerId"' \
    'grpcurl $TLS -d '\''{"path":"repository/README.md"}'\'' localhost:7443 lockstep.filesync.v1.FileService/GetFile'
line 0 '"STATE_IN_SYNC"' \
    'grpcurl $TLS -d '\''{"path":"repository/README.md"}'\'' localhost:7443 lockstep.gateway.v1.MatrixService/ExplainFile'
line 0 '"path": "hello.txt"' \
    'grpcurl $TLS -H '\''lockstep-server: s1'\'' -d '\''{"file":{"path":"hello.txt","content":"aGVsbG8="},"request_id":"r1"}'\'' localhost:7443 lockstep.filesync.v1.FileService/RegisterFile'
