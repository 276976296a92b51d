//! A connection to one Redis.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisResult, cmd, pipe};

use super::trouble::Trouble;
use crate::layout::{Content, Entry};
use crate::secret::Secret;

/// How long connecting may take, TLS and signing in included.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);
/// A key that holds something else by now is not ours to delete; one of another type answers with a table.
const TAKE_BACK: &str =
    "if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
const TAKE_BACK_HASH: &str = "if redis.pcall('HGET', KEYS[1], 'access_token') == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// Signed in. Dropped, it is closed.
pub(crate) struct Connection {
    redis: MultiplexedConnection,
}

/// What is to be done to a key.
pub(crate) enum Change<'a> {
    /// Write it, with an end.
    Put {
        /// What stands there afterwards.
        entry: &'a Entry,
        /// For how many seconds.
        for_s: u64,
    },
    /// Delete it, if it still holds this.
    TakeBack(&'a Entry),
}

impl Connection {
    /// Connects, signs in, and hears that Redis answers.
    pub(crate) async fn open(url: &Secret) -> Result<Self, Trouble> {
        // Fails when the program has chosen a provider already; then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let limits = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        let client = Client::open(url.expose())?;
        let redis = client.get_multiplexed_async_connection_with_config(&limits).await?;
        let mut connection = Self { redis };
        connection.ping().await?;
        Ok(connection)
    }

    /// Whether it answers.
    pub(crate) async fn ping(&mut self) -> Result<(), Trouble> {
        Ok(cmd("PING").query_async(&mut self.redis).await?)
    }

    /// Makes all of `changes`, or none.
    pub(crate) async fn make(&mut self, changes: &[Change<'_>]) -> Result<(), Trouble> {
        let mut pipe = pipe();
        pipe.atomic();
        for change in changes {
            match change {
                Change::Put { entry, for_s } => put(&mut pipe, entry, *for_s),
                Change::TakeBack(entry) => take_back(&mut pipe, entry),
            }
        }
        Ok(pipe.query_async(&mut self.redis).await?)
    }

    /// For each of `entries`, whether something else stands there, or nothing.
    pub(crate) async fn differ(&mut self, entries: &[&Entry]) -> Result<Vec<bool>, Trouble> {
        let mut pipe = pipe();
        pipe.ignore_errors();
        for entry in entries {
            pipe.add_command(read(entry));
        }
        let held: Vec<RedisResult<Option<Vec<u8>>>> = pipe.query_async(&mut self.redis).await?;
        let differs = |(entry, held): (&&Entry, RedisResult<Option<Vec<u8>>>)| match held {
            Ok(held) => Ok(held.as_deref() != Some(entry.content.mark().expose().as_bytes())),
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(true),
            Err(error) => Err(error.into()),
        };
        entries.iter().zip(held).map(differs).collect()
    }
}

fn put(pipe: &mut Pipeline, entry: &Entry, for_s: u64) {
    let key = entry.key.expose();
    match &entry.content {
        Content::Text(text) => {
            pipe.cmd("SET").arg(key).arg(text.expose()).arg("EX").arg(for_s);
        }
        Content::Hash { access_token, expired_at } => {
            // Something else may stand there, of another type or with other fields.
            pipe.cmd("DEL").arg(key);
            pipe.cmd("HSET").arg(key).arg("access_token").arg(access_token.expose());
            pipe.arg("expired_at").arg(*expired_at);
            pipe.cmd("EXPIRE").arg(key).arg(for_s);
        }
    }
}

fn take_back(pipe: &mut Pipeline, entry: &Entry) {
    let script = match &entry.content {
        Content::Text(_) => TAKE_BACK,
        Content::Hash { .. } => TAKE_BACK_HASH,
    };
    pipe.cmd("EVAL").arg(script).arg(1).arg(entry.key.expose()).arg(entry.content.mark().expose());
}

fn read(entry: &Entry) -> Cmd {
    let key = entry.key.expose();
    match &entry.content {
        Content::Text(_) => cmd("GET").arg(key).to_owned(),
        Content::Hash { .. } => cmd("HGET").arg(key).arg("access_token").to_owned(),
    }
}
