//! A connection to one Redis.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, RedisResult, Value, cmd, from_redis_value, pipe,
};

use super::trouble::{Refusal, Trouble};
use crate::layout::{Content, Entry};
use crate::secret::Secret;

/// How long connecting may take, TLS and signing in included.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);
/// A key that holds something else by now is not ours to delete; one of another type answers with a table.
const TAKE_BACK: &str =
    "if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
const TAKE_BACK_HASH: &str =
    "if redis.pcall('HGET', KEYS[1], ARGV[2]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

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

    /// Makes all of the changes of each of `groups`, or none where Redis refuses one of them, and says which it refuses.
    pub(crate) async fn make(
        &mut self,
        groups: &[Vec<Change<'_>>],
    ) -> Result<Vec<Result<(), Refusal>>, Trouble> {
        let mut pipe = pipe();
        pipe.ignore_errors();
        let mut lengths = Vec::with_capacity(groups.len());
        for group in groups {
            let before = pipe.len();
            if !group.is_empty() {
                pipe.cmd("MULTI");
                group.iter().for_each(|change| add(&mut pipe, change));
                pipe.cmd("EXEC");
            }
            lengths.push(pipe.len() - before);
        }
        if pipe.is_empty() {
            return Ok(groups.iter().map(|_| Ok(())).collect());
        }
        let replies: Vec<RedisResult<Value>> = pipe.query_async(&mut self.redis).await?;
        outcomes(&lengths, replies).into_iter().map(in_particular).collect()
    }

    /// For each of `expected`, whether what stands there is something else, or nothing, or stays for longer.
    pub(crate) async fn differ(
        &mut self,
        expected: &[Expected<'_>],
    ) -> Result<Vec<Result<bool, Refusal>>, Trouble> {
        let mut pipe = pipe();
        pipe.ignore_errors();
        for expected in expected {
            let key = expected.entry.key.expose();
            pipe.add_command(read(expected.entry)).cmd("PTTL").arg(key);
        }
        let found: Vec<RedisResult<Value>> = pipe.query_async(&mut self.redis).await?;
        let mut found = found.into_iter();
        let mut next = || found.next().unwrap_or(Ok(Value::Nil));
        expected.iter().map(|expected| in_particular(expected.differs(next(), next()))).collect()
    }
}

/// What is to be found at a key.
pub(crate) struct Expected<'a> {
    pub(crate) entry: &'a Entry,
    /// How long it may stay there.
    pub(crate) at_most: Duration,
}

impl Expected<'_> {
    fn differs(&self, held: RedisResult<Value>, left_ms: RedisResult<Value>) -> Result<bool, Refusal> {
        let held: Option<Vec<u8>> = match held {
            Err(error) if error.code() == Some("WRONGTYPE") => return Ok(true),
            held => from_redis_value(held?).map_err(RedisError::from)?,
        };
        // -1 without an end, -2 when it has ended since.
        let left_ms: i64 = from_redis_value(left_ms?).map_err(RedisError::from)?;
        let stays =
            left_ms == -1 || u128::try_from(left_ms).is_ok_and(|left| left > self.at_most.as_millis());
        Ok(stays || held.as_deref() != Some(self.entry.content.mark().expose().as_bytes()))
    }
}

/// A refusal that is not about what was asked is the connection's trouble.
fn in_particular<T>(outcome: Result<T, Refusal>) -> Result<Result<T, Refusal>, Trouble> {
    match outcome {
        Err(refusal) if refusal.is_of_all => Err(refusal.trouble),
        outcome => Ok(outcome),
    }
}

/// What came of transactions that have so many replies each.
fn outcomes(lengths: &[usize], replies: Vec<RedisResult<Value>>) -> Vec<Result<(), Refusal>> {
    let mut replies = replies.into_iter();
    let next = |length: &usize| {
        // All of them, also those after a refusal: the next transaction's begin behind.
        let own: Vec<_> = replies.by_ref().take(*length).collect();
        outcome(own.into_iter())
    };
    lengths.iter().map(next).collect()
}

/// What came of a transaction. What is refused as it is queued keeps all of it from being done; what is refused as it
/// is done does not.
fn outcome(mut replies: impl Iterator<Item = RedisResult<Value>>) -> Result<(), Refusal> {
    replies.next().transpose().map_err(|error| Refusal { is_of_all: true, ..Refusal::from(error) })?;
    for reply in replies {
        if let Value::Array(done) = reply? {
            for reply in done {
                reply.extract_error().map_err(|error| Refusal { in_part: true, ..Refusal::from(error) })?;
            }
        }
    }
    Ok(())
}

fn add(pipe: &mut Pipeline, change: &Change<'_>) {
    match change {
        Change::Put { entry, for_s } => put(pipe, entry, *for_s),
        Change::TakeBack(entry) => take_back(pipe, entry),
    }
}

fn put(pipe: &mut Pipeline, entry: &Entry, for_s: u64) {
    let key = entry.key.expose();
    match &entry.content {
        Content::Text(text) => {
            pipe.cmd("SET").arg(key).arg(text.expose()).arg("EX").arg(for_s);
        }
        Content::Hash { field, value, expired_at } => {
            // Something else may stand there, of another type or with other fields.
            pipe.cmd("DEL").arg(key);
            pipe.cmd("HSET").arg(key).arg(*field).arg(value.expose());
            pipe.arg("expired_at").arg(*expired_at);
            pipe.cmd("EXPIRE").arg(key).arg(for_s);
        }
    }
}

fn take_back(pipe: &mut Pipeline, entry: &Entry) {
    let (script, field) = match &entry.content {
        Content::Text(_) => (TAKE_BACK, None),
        Content::Hash { field, .. } => (TAKE_BACK_HASH, Some(*field)),
    };
    let mark = entry.content.mark().expose();
    pipe.cmd("EVAL").arg(script).arg(1).arg(entry.key.expose()).arg(mark).arg(field);
}

fn read(entry: &Entry) -> Cmd {
    let key = entry.key.expose();
    match &entry.content {
        Content::Text(_) => cmd("GET").arg(key).to_owned(),
        Content::Hash { field, .. } => cmd("HGET").arg(key).arg(*field).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    fn parsed(reply: &str) -> RedisResult<Value> {
        let value = parse_redis_value(format!("{reply}\r\n").as_bytes()).unwrap();
        if let Value::ServerError(error) = value { Err(error.into()) } else { Ok(value) }
    }

    fn after(replies: &[&str]) -> Result<(), Refusal> {
        outcome(replies.iter().copied().map(parsed))
    }

    #[test]
    fn a_key_is_not_ours_that_holds_something_else_or_does_not_end_in_time() {
        let [text, hash] = [
            Content::Text(Secret::new("ours")),
            Content::Hash { field: "jsticket", value: Secret::new("ours"), expired_at: 7 },
        ]
        .map(|content| Entry { key: Secret::new("k"), content });
        for (held, left_ms, differs) in [
            ("$4\r\nours", ":2500", false),
            ("$4\r\nours", ":2501", true),
            ("$4\r\nours", ":-1", true),
            ("$4\r\nours", ":-2", false),
            ("$5\r\nhours", ":100", true),
            ("$-1", ":-2", true),
            ("-WRONGTYPE x", ":100", true),
        ] {
            for entry in [&text, &hash] {
                let expected = Expected { entry, at_most: Duration::from_millis(2_500) };
                assert_eq!(expected.differs(parsed(held), parsed(left_ms)), Ok(differs), "{held} {left_ms}");
            }
        }
        let expected = Expected { entry: &text, at_most: Duration::MAX };
        for (held, left_ms) in [("-NOPERM k", ":1"), ("$4\r\nours", "-NOPERM k")] {
            assert_eq!(expected.differs(parsed(held), parsed(left_ms)).unwrap_err().code, "NOPERM");
        }
    }

    #[test]
    fn a_transaction_is_made_when_nothing_in_it_is_refused() {
        assert_eq!(after(&[]), Ok(()));
        assert_eq!(after(&["+OK", "+QUEUED", "+QUEUED", "*2\r\n+OK\r\n:1"]), Ok(()));
        for (replies, code, in_part) in [
            // As Redis answers: nothing is done when it knows beforehand, all the rest when it finds out.
            (&["+OK", "-NOPERM k", "+QUEUED", "-EXECABORT Transaction discarded"][..], "NOPERM", false),
            (&["+OK", "+QUEUED", "-EXECABORT Transaction discarded because of: OOM x"], "OOM", false),
            (&["+OK", "+QUEUED", "+QUEUED", "*2\r\n:1\r\n-WRONGTYPE k"], "WRONGTYPE", true),
        ] {
            let refusal = after(replies).unwrap_err();
            assert_eq!(
                (refusal.code.as_str(), refusal.in_part, refusal.is_of_all),
                (code, in_part, false),
                "{replies:?}"
            );
        }
        let both = ["+OK", "-NOPERM k", "-EXECABORT Transaction discarded", "+OK", "+QUEUED", "*1\r\n+OK"];
        let both = outcomes(&[3, 0, 3], both.into_iter().map(parsed).collect());
        let codes: Vec<_> = both
            .iter()
            .map(|made| made.as_ref().map_err(|refusal| (&*refusal.code, refusal.is_of_all)))
            .collect();
        assert_eq!(codes, [Err(("NOPERM", false)), Ok(&()), Ok(&())], "each has its own");
        let refusal = after(&["-NOPERM k", "+OK", "-ERR EXEC without MULTI"]).unwrap_err();
        assert!(refusal.is_of_all, "without MULTI nothing can be written");
    }
}
