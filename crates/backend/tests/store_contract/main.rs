//! The contract of the store, on every back end: in memory, in an SQLite file, on Redis.

mod embedded;
mod redis_only;
mod redis_rights;
mod redis_server;
mod sqlite_only;

use embedded::Embedded;
use redis_server::RedisFixture;

mod memory {
    roost_backend::store_contract!(super::Embedded::memory());
}

mod file {
    roost_backend::store_contract!(super::Embedded::file());
}

mod redis_store {
    roost_backend::store_contract!(super::RedisFixture::any());
}

mod redis_process {
    roost_backend::store_loss_contract!(super::RedisFixture::own());
}

/// On Redis Cluster a script may name keys of one slot only.
mod redis_cluster {
    roost_backend::contract_tests! { super::RedisFixture::cluster();
        claims::a_thousand_rows_are_renewed_in_one_call,
        random_data::any_sequence_of_writes_gets_the_models_answers,
        random_control::any_sequence_of_claims_gets_the_models_answers,
    }
}
