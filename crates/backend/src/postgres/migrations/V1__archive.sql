-- docs/OPERATIONS.md describes these tables. "C" collation: ids are compared by their bytes, which is also quicker.

-- The offset after the last archived record of each partition; moved in the transaction that stores the records.
CREATE TABLE positions (
    topic     text   NOT NULL,
    partition int    NOT NULL,
    next      bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

-- Who reads; a partition's reader is chosen among those with a fresh beat.
CREATE TABLE archivers (
    id   text        PRIMARY KEY,
    beat timestamptz NOT NULL
);

-- `json`, not `jsonb`: the text as it was sent.
CREATE TABLE messages (
    stream     text COLLATE "C" NOT NULL,
    generation bigint           NOT NULL,
    "offset"   bigint           NOT NULL,
    id         text COLLATE "C" NOT NULL,
    kind       text             NOT NULL,
    sender     text COLLATE "C" NOT NULL,
    at         timestamptz      NOT NULL,
    data       json             NOT NULL,
    PRIMARY KEY (stream, generation, "offset", at)
) PARTITION BY RANGE (at);

-- Messages that came again in a newer generation, and where they are kept.
CREATE TABLE aliases (
    stream           text COLLATE "C" NOT NULL,
    generation       bigint           NOT NULL,
    "offset"         bigint           NOT NULL,
    first_generation bigint           NOT NULL,
    first_offset     bigint           NOT NULL,
    at               timestamptz      NOT NULL,
    PRIMARY KEY (stream, generation, "offset")
);

CREATE TABLE status_changes (
    vnode     int              NOT NULL,
    epoch     bigint           NOT NULL,
    seq       bigint           NOT NULL,
    user_id   text COLLATE "C" NOT NULL,
    status    text             NOT NULL,
    cause     text             NOT NULL,
    at        timestamptz      NOT NULL,
    since     timestamptz      NOT NULL,
    last_seen timestamptz,
    PRIMARY KEY (vnode, epoch, seq, at)
) PARTITION BY RANGE (at);

CREATE INDEX status_changes_user ON status_changes (user_id, at, epoch, seq);

-- Records that are in none of the tables, with all their bytes.
CREATE TABLE dead_letters (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic     text        NOT NULL,
    partition int         NOT NULL,
    "offset"  bigint      NOT NULL,
    key       bytea       NOT NULL,
    payload   bytea       NOT NULL,
    reason    text        NOT NULL,
    at        timestamptz NOT NULL DEFAULT now()
);
