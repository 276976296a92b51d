//! What is wrong with a Redis, in words without secrets.

use redis::{ErrorKind, RedisError, ServerError};

use crate::certificates::{Missing, places};

/// Every command that we send.
const COMMANDS: &str = "SET, GET, STRLEN, DEL, HSET, HGET, HSTRLEN, EXPIRE, PTTL, EVAL, MULTI and EXEC";

/// Why a Redis does not accept what we write. Of Redis' own message only plain words are kept: it may quote
/// the command, and with it keys and tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SinkError(String);

impl SinkError {
    pub(crate) fn timed_out() -> Self {
        Self("no answer in time".to_owned())
    }

    pub(crate) fn without_certificates(missing: &Missing) -> Self {
        Self(format!("no CA certificates to know it by ({}): {missing}", places()))
    }
}

impl From<RedisError> for SinkError {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            Self::timed_out()
        } else if error.kind() == ErrorKind::AuthenticationFailed {
            Self("Redis refuses the user name or the password".to_owned())
        } else if error.kind() == ErrorKind::Io {
            Self(io_message(&error))
        } else if let Some(words) = error.to_string().contains("switch database").then(|| error.detail()) {
            Self(format!("Redis refuses the database of the URL: {}", plain(words.unwrap_or_default())))
        } else {
            RedisRefusal::from(error).trouble
        }
    }
}

/// Redis' message without any word that may be a key, a token or a password of ours.
fn plain(words: &str) -> String {
    let plain = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        let is_word = bare.len() <= 20 && bare.chars().all(|c| c.is_ascii_alphabetic() || "'-".contains(c));
        let is_number = bare.len() <= 5 && bare.bytes().all(|byte| byte.is_ascii_digit());
        if word.is_ascii() && (is_word || is_number) { word.to_owned() } else { "…".to_owned() }
    };
    let (words, _) = words.split_once(", with args").unwrap_or((words, ""));
    words.split_ascii_whitespace().take(30).map(plain).collect::<Vec<_>>().join(" ")
}

/// The operating system's message, or that of TLS.
fn io_message(error: &RedisError) -> String {
    let message = error.to_string();
    if message.contains("corrupt message") {
        "it does not speak TLS on this port".to_owned()
    } else {
        message
    }
}

/// Redis' answer when it does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RedisRefusal {
    /// Redis' error code.
    pub(crate) code: String,
    /// The same in a sentence.
    pub(crate) trouble: SinkError,
    /// Whether it is not about one key, but about every command.
    pub(crate) concerns_all_keys: bool,
    /// Whether a part may have been done.
    pub(crate) in_part: bool,
}

/// The known error codes: whether each is about every key, and what it means.
const KNOWN: [(&str, bool, &str); 12] = [
    ("NOAUTH", true, "it wants a password"),
    ("READONLY", true, "it is a replica"),
    ("MASTERDOWN", true, "it is a replica, and its master is gone"),
    ("NOREPLICAS", true, "it has too few replicas"),
    ("MISCONF", true, "it cannot save to its disk"),
    ("LOADING", true, "it is loading its data"),
    ("BUSY", true, "it runs somebody's script"),
    ("MOVED", true, "it is a cluster, which is not supported"),
    ("CROSSSLOT", true, "it is a cluster, which is not supported"),
    ("CLUSTERDOWN", true, "it is a cluster, which is not supported"),
    // There may be room for the next, and it deletes what it is asked to delete.
    ("OOM", false, "its memory is full"),
    ("WRONGTYPE", false, "something else stands there"),
];

impl From<RedisError> for RedisRefusal {
    fn from(error: RedisError) -> Self {
        let kind = error.kind();
        let Some(errors) = error.into_server_errors() else {
            let trouble = SinkError(format!("Redis does not answer as it should ({kind:?})"));
            return Self { code: "none".to_owned(), trouble, concerns_all_keys: true, in_part: true };
        };
        let (code, details) = errors.first().map_or(("", ""), |(_, error)| code_of(error));
        let is_a_code = code.len() <= 20 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        let code = if is_a_code { code } else { "ERR" };
        let (concerns_all_keys, advice) = match KNOWN.iter().find(|(known, ..)| *known == code) {
            Some((_, concerns_all_keys, advice)) => (*concerns_all_keys, format!(": {advice}")),
            None if code == "NOPERM" => (false, format!(": its ACL must allow {COMMANDS} on the keys")),
            None if details.contains("unknown command") => {
                (true, format!(": it does not know one of the commands {COMMANDS}"))
            }
            None => (false, String::new()),
        };
        // A message without a Redis error code is not worded by Redis either.
        let words = if is_a_code { plain(details) } else { String::new() };
        let words = if words.is_empty() { words } else { format!(" (it says: {words})") };
        let trouble = SinkError(format!("Redis refuses with {code}{advice}{words}"));
        Self { code: code.to_owned(), trouble, concerns_all_keys, in_part: false }
    }
}

#[cfg(test)]
impl RedisRefusal {
    /// A refusal of one key.
    pub(crate) fn example(code: &str) -> Self {
        let trouble = SinkError(format!("Redis refuses with {code}"));
        Self { code: code.to_owned(), trouble, concerns_all_keys: false, in_part: false }
    }
}

/// Redis' error code, and the rest of the message.
fn code_of(error: &ServerError) -> (&str, &str) {
    let details = error.details().unwrap_or_default();
    // Accepted when it was queued, and refused when the transaction was executed.
    match details.strip_prefix("Transaction discarded because of: ") {
        Some(cause) => cause.split_once(' ').unwrap_or((cause, "")),
        None => (error.code(), details),
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn refusal(line: &str) -> RedisRefusal {
        let reply = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        RedisRefusal::from(reply.and_then(Value::extract_error).unwrap_err())
    }

    #[test]
    fn refusals_of_one_key_are_distinguished_from_those_of_all_keys() {
        for (line, code, concerns_all_keys) in [
            ("WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE", false),
            ("OOM command not allowed when used memory > 'maxmemory'.", "OOM", false),
            ("EXECABORT Transaction discarded because of: OOM command not allowed", "OOM", false),
            ("NOPERM this user has no permissions to access one of the keys", "NOPERM", false),
            ("EXECABORT Transaction discarded because of previous errors.", "EXECABORT", false),
            ("ERR value is not an integer", "ERR", false),
            ("ERR unknown command 'SET', with args beginning with: 'k' 't'", "ERR", true),
            ("READONLY You can't write against a read only replica.", "READONLY", true),
            ("LOADING Redis is loading the dataset in memory", "LOADING", true),
            ("MOVED 3999 127.0.0.1:6381", "MOVED", true),
            ("NOAUTH Authentication required.", "NOAUTH", true),
            ("token-5ecre7 is not allowed", "ERR", false),
        ] {
            let found = refusal(line);
            assert_eq!(
                (found.code.as_str(), found.concerns_all_keys, found.in_part),
                (code, concerns_all_keys, false),
                "{line}"
            );
            let message = found.trouble.to_string();
            assert!(message.starts_with(&format!("Redis refuses with {code}")), "{message}");
            assert!(!message.contains("5ecre7") && !message.contains("'k'"), "{message}");
        }
    }

    #[test]
    fn redis_own_words_are_shown_except_what_may_be_a_key_a_token_or_a_password() {
        for (line, message) in [
            (
                "NOPERM this user has no permissions to run the 'hset' command",
                "this user has no permissions to run the 'hset' command",
            ),
            ("ERR unknown command 'SET', with args beginning with: 'k' '5ecre7'", "unknown command 'SET'"),
            ("ERR no such thing as t:wx1 or 33_rpwR0zf4I531imweEwFN6a75", "no such thing as … or …"),
            ("ERR max 4096 of abcdefghijklmnopqrstuvwxyz \u{5bc6}", "max 4096 of … …"),
            ("MISCONF Redis can't write, see its log.", "Redis can't write, see its log."),
        ] {
            let trouble = refusal(line).trouble.to_string();
            assert!(trouble.ends_with(&format!(" (it says: {message})")), "{line}: {trouble}");
        }
    }
}
