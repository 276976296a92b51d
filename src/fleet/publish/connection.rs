//! A connection to one Redis.

use std::collections::VecDeque;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, IntoConnectionInfo, Pipeline, RedisError, RedisResult, Value, cmd,
    from_redis_value, pipe,
};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use wxtokend_core::sdk::layout::{Content, Entry};
use wxtokend_core::secret::Secret;

use super::sink_error::{RedisRefusal, SinkError};
use super::stream::{self, BoundedReader};
use crate::certificates;

/// How long connecting may take, TLS and authentication included.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);
/// How many bytes of values are read in one batch; the last value may exceed it.
const VALUES_AT_ONCE: usize = 256 * 1024;
/// The longest value that is read to see whether it holds a token of ours.
const LONGEST_VALUE: usize = 4 * 1024;
/// A key that holds something else by now is not ours to delete. One of another type answers with a table.
const WITHDRAW: &str =
    "if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
const WITHDRAW_HASH: &str =
    "if redis.pcall('HGET', KEYS[1], ARGV[2]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// An authenticated connection, closed when it is dropped.
pub(crate) struct RedisConnection {
    redis: MultiplexedConnection,
    /// The task that writes commands and reads answers.
    _driver: AbortOnDropHandle<()>,
}

/// A change to one key.
pub(crate) enum KeyChange<'a> {
    /// Write it, with an expiry.
    Put {
        /// What the key holds afterwards.
        entry: &'a Entry,
        /// In how many seconds it expires.
        for_s: u64,
    },
    /// Delete it, if it still holds this.
    Withdraw(&'a Entry),
}

impl RedisConnection {
    /// Connects, authenticates, and waits until Redis answers a ping.
    pub(crate) async fn open(url: &Secret) -> Result<Self, SinkError> {
        let info = url.expose().into_connection_info()?;
        // They have their own time limit, and an error of theirs would be lost in that of connecting.
        let certificates = match stream::is_tls(info.addr()) {
            true => {
                certificates::system().await.map_err(|missing| SinkError::without_certificates(&missing))?
            }
            false => Vec::new(),
        };
        let connected = timeout(CONNECT, async {
            let limits = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
            let stream = BoundedReader::new(stream::connect(info.addr(), certificates).await?);
            MultiplexedConnection::new_with_config(info.redis_settings(), stream, limits).await
        });
        let (redis, driver) = connected.await.map_err(|_| SinkError::timed_out())??;
        let mut connection = Self { redis, _driver: AbortOnDropHandle::new(tokio::spawn(driver)) };
        connection.ping().await?;
        Ok(connection)
    }

    /// Checks that Redis answers. A refusal, because its ACL lacks PING or the command was renamed, is an
    /// answer.
    pub(crate) async fn ping(&mut self) -> Result<(), SinkError> {
        match cmd("PING").query_async(&mut self.redis).await {
            Err(error) if is_about_the_command(&error) => Ok(()),
            answered => Ok(answered?),
        }
    }

    /// Makes each of `groups` of changes as a whole, or not at all where Redis refuses one of them. Returns
    /// which it refuses.
    pub(crate) async fn apply(
        &mut self,
        groups: &[Vec<KeyChange<'_>>],
    ) -> Result<Vec<Result<(), RedisRefusal>>, SinkError> {
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
        outcomes(&lengths, replies).into_iter().map(of_this_command).collect()
    }

    /// For each of `expected`, whether the key holds something else or nothing, or lives longer.
    pub(crate) async fn differ(
        &mut self,
        expected: &[ExpectedValue<'_>],
    ) -> Result<Vec<Result<bool, RedisRefusal>>, SinkError> {
        let mut lengths = pipe();
        lengths.ignore_errors();
        for expected in expected {
            lengths.add_command(length(expected.entry)).cmd("PTTL").arg(expected.entry.key.expose());
        }
        let found: Vec<RedisResult<Value>> = lengths.query_async(&mut self.redis).await?;
        let mut found = found.into_iter();
        let mut next = || found.next().unwrap_or(Ok(Value::Nil));
        let differ: Vec<_> = expected
            .iter()
            .map(|expected| expected.shows_another(next(), next()))
            .map(of_this_command)
            .collect();
        let mut differ = differ.into_iter().collect::<Result<Vec<_>, _>>()?;
        // Only what may be ours is read: another program's value may be half a gigabyte.
        let alike = expected.iter().zip(&mut differ).filter(|(_, differs)| matches!(differs, Ok(false)));
        let mut alike: VecDeque<_> = alike.collect();
        while !alike.is_empty() {
            let mut values = pipe();
            values.ignore_errors();
            let (mut asked, mut bytes) = (Vec::new(), 0);
            while let Some((expected, differs)) = alike.pop_front_if(|_| bytes < VALUES_AT_ONCE) {
                bytes += expected.mark().len();
                values.add_command(read(expected.entry));
                asked.push((expected, differs));
            }
            let held: Vec<RedisResult<Value>> = values.query_async(&mut self.redis).await?;
            for ((expected, differs), held) in asked.into_iter().zip(held) {
                *differs = of_this_command(expected.differs(held))?;
            }
        }
        Ok(differ)
    }

    /// For each entry, whether its key is missing or holds none of these tokens. A key that Redis does not
    /// let us read holds one, as far as we know.
    pub(crate) async fn lack(&mut self, entries: &[(&Entry, Vec<&Secret>)]) -> Result<Vec<bool>, SinkError> {
        let mut lengths = pipe();
        lengths.ignore_errors();
        for (entry, _) in entries {
            lengths.add_command(length(entry));
        }
        let lengths: Vec<RedisResult<Value>> = lengths.query_async(&mut self.redis).await?;
        let mut values = pipe();
        values.ignore_errors();
        let mut lack: Vec<_> = lengths.into_iter().map(lacks_by_length).collect();
        for ((entry, _), lacks) in entries.iter().zip(&lack) {
            if lacks.is_none() {
                values.add_command(read(entry));
            }
        }
        if !values.is_empty() {
            let held: Vec<RedisResult<Value>> = values.query_async(&mut self.redis).await?;
            let unread = entries.iter().zip(&mut lack).filter(|(_, lacks)| lacks.is_none());
            for (((_, tokens), lacks), held) in unread.zip(held) {
                *lacks = Some(lacks_all_of(tokens, held));
            }
        }
        Ok(lack.into_iter().map(|lacks| lacks == Some(true)).collect())
    }
}

/// Whether a value of this length holds no token of ours; `None` if it must be read to tell.
fn lacks_by_length(length: RedisResult<Value>) -> Option<bool> {
    match length.map(from_redis_value::<usize>) {
        Ok(Ok(0)) => Some(true),
        Ok(Ok(length)) => (length > LONGEST_VALUE).then_some(true),
        Err(error) if error.code() == Some("WRONGTYPE") => Some(true),
        Err(_) | Ok(Err(_)) => Some(false),
    }
}

fn lacks_all_of(tokens: &[&Secret], held: RedisResult<Value>) -> bool {
    let Ok(Ok(held)) = held.map(from_redis_value::<Option<Vec<u8>>>) else { return false };
    let held = held.unwrap_or_default();
    !tokens.iter().any(|token| contains(&held, token.expose().as_bytes()))
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len().max(1)).any(|window| window == word)
}

/// What a key should hold.
pub(crate) struct ExpectedValue<'a> {
    pub(crate) entry: &'a Entry,
    /// How long the key may live.
    pub(crate) at_most: Duration,
}

impl ExpectedValue<'_> {
    fn mark(&self) -> &[u8] {
        self.entry.content.mark().expose().as_bytes()
    }

    /// Whether the length or the expiry shows that it is not ours.
    fn shows_another(
        &self,
        length: RedisResult<Value>,
        left_ms: RedisResult<Value>,
    ) -> Result<bool, RedisRefusal> {
        let length: usize = match length {
            Err(error) if error.code() == Some("WRONGTYPE") => return Ok(true),
            length => from_redis_value(length?).map_err(RedisError::from)?,
        };
        // -1 without an expiry, -2 when it has expired since.
        let left_ms: i64 = from_redis_value(left_ms?).map_err(RedisError::from)?;
        let stays =
            left_ms == -1 || u128::try_from(left_ms).is_ok_and(|left| left > self.at_most.as_millis());
        Ok(stays || length != self.mark().len())
    }

    /// Whether it is something else of the same length.
    fn differs(&self, held: RedisResult<Value>) -> Result<bool, RedisRefusal> {
        let held: Option<Vec<u8>> = match held {
            Err(error) if error.code() == Some("WRONGTYPE") => return Ok(true),
            held => from_redis_value(held?).map_err(RedisError::from)?,
        };
        Ok(held.as_deref() != Some(self.mark()))
    }
}

/// Whether Redis is well and knows the user, but may or can not carry out this command.
fn is_about_the_command(error: &RedisError) -> bool {
    error.code() == Some("NOPERM") || error.detail().is_some_and(|words| words.contains("unknown command"))
}

/// Separates a refusal of this command from one of every command, which is an error of the connection.
fn of_this_command<T>(outcome: Result<T, RedisRefusal>) -> Result<Result<T, RedisRefusal>, SinkError> {
    match outcome {
        Err(refusal) if refusal.concerns_all_keys => Err(refusal.trouble),
        outcome => Ok(outcome),
    }
}

/// The outcomes of transactions that have `lengths` replies each.
fn outcomes(lengths: &[usize], replies: Vec<RedisResult<Value>>) -> Vec<Result<(), RedisRefusal>> {
    let mut replies = replies.into_iter();
    let next = |length: &usize| {
        // All of them, also those after a refusal, since the next transaction's replies follow.
        let own: Vec<_> = replies.by_ref().take(*length).collect();
        outcome(own.into_iter())
    };
    lengths.iter().map(next).collect()
}

/// The outcome of a transaction. A command that is refused when it is queued keeps all of it from being done;
/// one that is refused on execution does not.
fn outcome(mut replies: impl Iterator<Item = RedisResult<Value>>) -> Result<(), RedisRefusal> {
    replies
        .next()
        .transpose()
        .map_err(|error| RedisRefusal { concerns_all_keys: true, ..RedisRefusal::from(error) })?;
    for reply in replies {
        if let Value::Array(done) = reply? {
            for reply in done {
                reply
                    .extract_error()
                    .map_err(|error| RedisRefusal { in_part: true, ..RedisRefusal::from(error) })?;
            }
        }
    }
    Ok(())
}

fn add(pipe: &mut Pipeline, change: &KeyChange<'_>) {
    match change {
        KeyChange::Put { entry, for_s } => put(pipe, entry, *for_s),
        KeyChange::Withdraw(entry) => withdraw(pipe, entry),
    }
}

fn put(pipe: &mut Pipeline, entry: &Entry, for_s: u64) {
    let key = entry.key.expose();
    match &entry.content {
        Content::Text(text) => {
            pipe.cmd("SET").arg(key).arg(text.expose()).arg("EX").arg(for_s);
        }
        Content::Hash { field, value, expired_at } => {
            // The key may hold something else, of another type or with other fields.
            pipe.cmd("DEL").arg(key);
            pipe.cmd("HSET").arg(key).arg(*field).arg(value.expose());
            pipe.arg("expired_at").arg(*expired_at);
            pipe.cmd("EXPIRE").arg(key).arg(for_s);
        }
    }
}

fn withdraw(pipe: &mut Pipeline, entry: &Entry) {
    let (script, field) = match &entry.content {
        Content::Text(_) => (WITHDRAW, None),
        Content::Hash { field, .. } => (WITHDRAW_HASH, Some(*field)),
    };
    let mark = entry.content.mark().expose();
    pipe.cmd("EVAL").arg(script).arg(1).arg(entry.key.expose()).arg(mark).arg(field);
}

fn length(entry: &Entry) -> Cmd {
    let key = entry.key.expose();
    match &entry.content {
        Content::Text(_) => cmd("STRLEN").arg(key).to_owned(),
        Content::Hash { field, .. } => cmd("HSTRLEN").arg(key).arg(*field).to_owned(),
    }
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn parsed(reply: &str) -> RedisResult<Value> {
        let value = parse_redis_value(format!("{reply}\r\n").as_bytes()).unwrap();
        if let Value::ServerError(error) = value { Err(error.into()) } else { Ok(value) }
    }

    fn after(replies: &[&str]) -> Result<(), RedisRefusal> {
        outcome(replies.iter().copied().map(parsed))
    }

    #[test]
    fn a_key_is_not_ours_that_holds_something_else_or_does_not_end_in_time() {
        let [text, hash] = [
            Content::Text(Secret::new("ours")),
            Content::Hash { field: "jsticket", value: Secret::new("ours"), expired_at: 7 },
        ]
        .map(|content| Entry { key: Secret::new("k"), content });
        for (length, left_ms, another) in [
            (":4", ":2500", false),
            (":4", ":2501", true),
            (":4", ":-1", true),
            (":4", ":-2", false),
            (":500000000", ":100", true),
            (":0", ":-2", true),
            ("-WRONGTYPE x", ":100", true),
        ] {
            for entry in [&text, &hash] {
                let expected = ExpectedValue { entry, at_most: Duration::from_millis(2_500) };
                let found = expected.shows_another(parsed(length), parsed(left_ms));
                assert_eq!(found, Ok(another), "{length} {left_ms}");
            }
        }
        let expected = ExpectedValue { entry: &text, at_most: Duration::MAX };
        for (held, differs) in
            [("$4\r\nours", false), ("$4\r\nhers", true), ("$-1", true), ("-WRONGTYPE x", true)]
        {
            assert_eq!(expected.differs(parsed(held)), Ok(differs), "{held}");
        }
        for (length, left_ms) in [("-NOPERM k", ":1"), (":4", "-NOPERM k")] {
            assert_eq!(expected.shows_another(parsed(length), parsed(left_ms)).unwrap_err().code, "NOPERM");
        }
        assert_eq!(expected.differs(parsed("-NOPERM k")).unwrap_err().code, "NOPERM");
    }

    #[test]
    fn a_key_lacks_our_token_that_is_missing_or_holds_another() {
        for (length, lacks) in [
            (":0", Some(true)),
            (":9", None),
            (":4097", Some(true)),
            ("-WRONGTYPE x", Some(true)),
            ("-NOPERM k", Some(false)),
        ] {
            assert_eq!(lacks_by_length(parsed(length)), lacks, "{length}");
        }
        let (now, before) = (Secret::new("now"), Secret::new("before"));
        for (held, lacks) in [
            ("$3\r\nnow", false),
            ("$10\r\ns:3:\"now\";", false),
            ("$6\r\nbefore", false),
            ("$3\r\nnew", true),
            ("$-1", true),
            ("-NOPERM k", false),
        ] {
            assert_eq!(lacks_all_of(&[&now, &before], parsed(held)), lacks, "{held}");
        }
    }

    /// A Redis that answers each read with the next of `answers`, and repeats the last of them forever.
    async fn fake(answers: &'static [&'static str]) -> Secret {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in &answers[..answers.len() - 1] {
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            let last = answers[answers.len() - 1].repeat(10_000);
            while !last.is_empty() && stream.write_all(last.as_bytes()).await.is_ok() {}
            std::future::pending::<()>().await;
        });
        Secret::new(url)
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_its_end() {
        // The first answers the two commands with which the client introduces itself.
        for answers in [
            &["+OK\r\n+OK\r\n", "+", "x"][..],
            &["+OK\r\n+OK\r\n", "$500000000\r\n", "x"],
            &["+OK\r\n+OK\r\n", "*2000000000\r\n", ":1111111111111111111\r\n"],
            &["-", "x"],
        ] {
            let trouble = RedisConnection::open(&fake(answers).await).await.err().unwrap();
            assert_eq!(trouble.to_string(), "an answer is longer than 1 MiB", "{answers:?}");
        }
    }

    #[tokio::test]
    async fn a_redis_that_refuses_to_be_pinged_is_there() {
        for refusal in [
            "-NOPERM this user has no permissions to run the 'ping' command\r\n",
            "-ERR unknown command 'PING', with args beginning with: \r\n",
        ] {
            let answers = vec!["+OK\r\n+OK\r\n", refusal, ""].leak();
            assert!(RedisConnection::open(&fake(answers).await).await.is_ok(), "{refusal}");
        }
        let answers = &["+OK\r\n+OK\r\n", "-LOADING Redis is loading the dataset in memory\r\n", ""];
        assert!(RedisConnection::open(&fake(answers).await).await.is_err());
    }

    #[test]
    fn a_transaction_is_made_when_nothing_in_it_is_refused() {
        assert_eq!(after(&[]), Ok(()));
        assert_eq!(after(&["+OK", "+QUEUED", "+QUEUED", "*2\r\n+OK\r\n:1"]), Ok(()));
        for (replies, code, in_part) in [
            // As Redis answers: nothing is done when it refuses on queueing, all the rest when it refuses on
            // execution.
            (&["+OK", "-NOPERM k", "+QUEUED", "-EXECABORT Transaction discarded"][..], "NOPERM", false),
            (&["+OK", "+QUEUED", "-EXECABORT Transaction discarded because of: OOM x"], "OOM", false),
            (&["+OK", "+QUEUED", "+QUEUED", "*2\r\n:1\r\n-WRONGTYPE k"], "WRONGTYPE", true),
        ] {
            let refusal = after(replies).unwrap_err();
            assert_eq!(
                (refusal.code.as_str(), refusal.in_part, refusal.concerns_all_keys),
                (code, in_part, false),
                "{replies:?}"
            );
        }
        let both = ["+OK", "-NOPERM k", "-EXECABORT Transaction discarded", "+OK", "+QUEUED", "*1\r\n+OK"];
        let both = outcomes(&[3, 0, 3], both.into_iter().map(parsed).collect());
        let codes: Vec<_> = both
            .iter()
            .map(|applied| applied.as_ref().map_err(|refusal| (&*refusal.code, refusal.concerns_all_keys)))
            .collect();
        assert_eq!(codes, [Err(("NOPERM", false)), Ok(&()), Ok(&())], "each has its own");
        let refusal = after(&["-NOPERM k", "+OK", "-ERR EXEC without MULTI"]).unwrap_err();
        assert!(refusal.concerns_all_keys, "without MULTI nothing can be written");
    }
}
