-- Messages that were not acknowledged in time, as in `messages`.
CREATE TABLE undelivered (LIKE messages INCLUDING ALL) PARTITION BY RANGE (at);

CREATE TABLE client_events (
    client_id text COLLATE "C" NOT NULL,
    event_id  text COLLATE "C" NOT NULL,
    vnode     int              NOT NULL,
    epoch     bigint           NOT NULL,
    seq       bigint           NOT NULL,
    at        timestamptz      NOT NULL,
    data      json             NOT NULL,
    PRIMARY KEY (client_id, event_id, at)
) PARTITION BY RANGE (at);

CREATE INDEX client_events_client ON client_events (client_id, at, epoch, seq);

-- `at` is when it came into the log; what the processor says of time is in the record.
CREATE TABLE client_results (
    client_id text COLLATE "C" NOT NULL,
    result_id text COLLATE "C" NOT NULL,
    event_id  text COLLATE "C" NOT NULL,
    kind      text             NOT NULL,
    at        timestamptz      NOT NULL,
    record    json             NOT NULL,
    PRIMARY KEY (client_id, result_id, at)
) PARTITION BY RANGE (at);

CREATE INDEX client_results_event ON client_results (client_id, event_id, at);

-- Several processes may say of the same record that it could not be placed.
CREATE INDEX dead_letters_place ON dead_letters (topic, partition, "offset");
