//! Connections: a few, bounded in number and in time, and thrown away after anything unexpected.

use std::error::Error;
use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::tls::{self, Tls};
use crate::archive::{ArchiveError, QUESTIONS_MAX};

/// Six that store (one for each topic), one that beats, one that removes what is too old, and those of whoever asks.
const CONNECTIONS: usize = 8 + QUESTIONS_MAX;
/// For a connection, whether made or waited for.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For an answer to a question.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(5);
/// A reader's question is given up by the server before we would: nobody waits for it any more, and it must not keep a
/// processor of the database busy while the next one is asked. One whose connection is lost in the middle of a statement
/// runs on for no longer than this.
const QUESTION_SETTINGS: &str = "SET LOCAL statement_timeout = '4s'";
/// For a whole batch: the largest takes a tenth of a second on a healthy database.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(30);
/// A machine that went away without a word is noticed within this.
const TCP_LIMIT: Duration = Duration::from_secs(20);
/// The server ends what a dead archiver left behind, so that it does not hold its locks: a little after we would.
const SETTINGS: &str = "SET statement_timeout = '40s'; SET idle_in_transaction_session_timeout = '40s';
                        SET lock_timeout = '20s'; SET timezone = 'UTC'";

pub(super) struct Link {
    pool: Pool,
}

/// A connection that goes back to the pool only after [`done`](Self::done): whoever was cut off in the middle of
/// something leaves it in an unknown state.
pub(super) struct Lease(Option<Object>);

impl Lease {
    pub(super) fn client(&mut self) -> &mut Client {
        self.0.as_mut().expect("taken only at the end")
    }

    pub(super) fn done(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

impl Link {
    /// Connects to nothing yet.
    pub(super) fn new(url: &str) -> Result<Self, ArchiveError> {
        let config = |e: &dyn std::fmt::Display| ArchiveError::Config(e.to_string());
        let (url, check) = tls::of_url(url).map_err(|e| config(&e))?;
        let tls = Tls::new(&check).map_err(|e| config(&e))?;
        let mut postgres: tokio_postgres::Config = url.parse().map_err(|e| config(&e))?;
        postgres.connect_timeout(CONNECT_LIMIT).tcp_user_timeout(TCP_LIMIT);
        if postgres.get_application_name().is_none() {
            postgres.application_name("roost-archiver");
        }
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let settings = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
            Box::pin(async move { client.batch_execute(SETTINGS).await.map_err(HookError::Backend) })
        });
        let pool = Pool::builder(Manager::from_config(postgres, tls, recycling))
            .max_size(CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_LIMIT))
            .create_timeout(Some(CONNECT_LIMIT))
            .post_create(settings)
            .build()
            .map_err(|e| config(&e))?;
        Ok(Self { pool })
    }

    pub(super) async fn lease(&self) -> Result<Lease, ArchiveError> {
        // The pool bounds the waiting and the making of a connection, and not what is set on it afterwards.
        let Ok(object) = timeout(2 * CONNECT_LIMIT, self.pool.get()).await else {
            return Err(ArchiveError::Timeout(2 * CONNECT_LIMIT));
        };
        match object {
            Ok(object) => Ok(Lease(Some(object))),
            Err(PoolError::Timeout(_)) => Err(ArchiveError::Timeout(CONNECT_LIMIT)),
            Err(PoolError::Backend(e) | PoolError::PostCreateHook(HookError::Backend(e))) => Err(trouble(&e)),
            Err(e) => Err(ArchiveError::Unreachable(e.to_string())),
        }
    }

    /// One question.
    pub(super) async fn ask<T>(
        &self,
        ask: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, ArchiveError> {
        self.ask_mut(async |client| ask(client).await).await
    }

    async fn ask_mut<T>(
        &self,
        ask: impl AsyncFnOnce(&mut Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, ArchiveError> {
        let mut lease = self.lease().await?;
        let answer = timeout(ASK_LIMIT, ask(lease.client())).await;
        let answer = answer.map_err(|_| ArchiveError::Timeout(ASK_LIMIT))?.map_err(|e| trouble(&e))?;
        lease.done();
        Ok(answer)
    }

    /// One question of a reader, in a transaction, so that it can be read in pieces.
    pub(super) async fn question<T>(
        &self,
        ask: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, ArchiveError> {
        self.ask_mut(async |client| {
            let tx = client.transaction().await?;
            tx.batch_execute(QUESTION_SETTINGS).await?;
            let answer = ask(&tx).await?;
            tx.commit().await?;
            Ok(answer)
        })
        .await
    }
}

/// A prepared statement that is there already, or is not there: our connections are not ours alone.
const OF_A_POOLER: [&str; 2] = ["42P05", "26000"];

/// The causes of an error, first to last.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// With its causes: the driver's own text is only "db error" or "error connecting to server".
fn text(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Names what went wrong with a connection or a statement.
pub(super) fn trouble(error: &tokio_postgres::Error) -> ArchiveError {
    let mut text = text(error);
    let Some(code) = error.code() else { return ArchiveError::Unreachable(text) };
    if OF_A_POOLER.contains(&code.code()) {
        text.push_str(" (is there a pooler in between? It must keep sessions apart, as PgBouncer does with pool_mode = session)");
    }
    let login = [
        SqlState::INVALID_PASSWORD,
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        SqlState::UNDEFINED_DATABASE,
    ];
    // Connection trouble, no resources, an operator's doing, a rival, trouble of the server's own.
    let passes = ["08", "40", "53", "55", "57", "58"];
    if login.contains(code) {
        ArchiveError::Config(text)
    } else if passes.iter().any(|class| code.code().starts_with(class)) {
        ArchiveError::Unreachable(text)
    } else {
        ArchiveError::Refused(text)
    }
}
