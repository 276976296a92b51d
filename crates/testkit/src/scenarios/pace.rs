//! The durations that a scenario is played at; its own times are multiples of these.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

/// How long things last with one driver.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long WeChat's tokens live.
    pub lifetime: Duration,
    /// How long the previous token works next to a new one.
    pub overlap: Duration,
    /// Time limit for one try of a call.
    pub timeout: Duration,
    /// `retry.initial` and `retry.max`.
    pub retry: (Duration, Duration),
    /// `rejection_cooldown`.
    pub cooldown: Duration,
    /// How often the account is read.
    pub look_every: Duration,
    /// How long something that must come may take.
    pub patience: Duration,
}

impl Pace {
    /// WeChat's numbers and the file's defaults, for paused time, where waiting costs nothing.
    pub const WECHAT: Self = Self {
        lifetime: Duration::from_secs(7200),
        overlap: Duration::from_secs(300),
        timeout: Duration::from_secs(5),
        retry: (Duration::from_secs(2), Duration::from_secs(60)),
        cooldown: Duration::from_secs(5),
        look_every: Duration::from_secs(2),
        patience: Duration::from_secs(86_400),
    };
    /// Small enough to wait for in real time.
    pub const QUICK: Self = Self {
        lifetime: Duration::from_secs(8),
        overlap: Duration::from_secs(2),
        timeout: Duration::from_secs(3),
        retry: (Duration::from_millis(200), Duration::from_secs(1)),
        cooldown: Duration::from_secs(1),
        look_every: Duration::from_millis(100),
        patience: Duration::from_secs(45),
    };
    /// Four times as slow: a second or two of delay on a busy machine changes nothing at this pace.
    pub const SLOW: Self = Self {
        lifetime: Duration::from_secs(32),
        overlap: Duration::from_secs(8),
        timeout: Self::WECHAT.timeout,
        retry: (Duration::from_millis(800), Duration::from_secs(4)),
        cooldown: Duration::from_secs(4),
        look_every: Duration::from_millis(100),
        patience: Duration::from_secs(180),
    };
    /// As quick, but nothing falls due by itself: tokens outlive the scenario.
    pub const QUIET: Self =
        Self { lifetime: Self::WECHAT.lifetime, overlap: Self::WECHAT.overlap, ..Self::QUICK };
    /// The same, slowly.
    pub const SLOW_AND_QUIET: Self =
        Self { lifetime: Self::WECHAT.lifetime, overlap: Self::WECHAT.overlap, ..Self::SLOW };
}

/// A time as written in a scenario: `50% lifetime`, `2 overlaps`, `31 s`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    amount: f64,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Unit {
    Lifetime,
    Overlap,
    Timeout,
    /// The longest wait for a retry.
    Retry,
    Cooldown,
    Second,
}

impl Span {
    /// Returns its duration at `pace`.
    pub fn at(self, pace: &Pace) -> Duration {
        let unit = match self.unit {
            Unit::Lifetime => pace.lifetime,
            Unit::Overlap => pace.overlap,
            Unit::Timeout => pace.timeout,
            Unit::Retry => pace.retry.1,
            Unit::Cooldown => pace.cooldown,
            Unit::Second => Duration::from_secs(1),
        };
        unit.mul_f64(self.amount)
    }

    /// Whether it is the same at every pace.
    pub fn is_absolute(self) -> bool {
        self.unit == Unit::Second
    }

    fn parse(text: &str) -> Option<Self> {
        let (amount, unit) = text.split_once(' ')?;
        let unit = match unit {
            "lifetime" | "lifetimes" => Unit::Lifetime,
            "overlap" | "overlaps" => Unit::Overlap,
            "timeout" | "timeouts" => Unit::Timeout,
            "retry" | "retries" => Unit::Retry,
            "cooldown" | "cooldowns" => Unit::Cooldown,
            "s" => Unit::Second,
            _ => return None,
        };
        let amount = match amount.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().ok()? / 100.0,
            None => amount.parse().ok()?,
        };
        (amount.is_finite() && amount > 0.0).then_some(Self { amount, unit })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let problem = || {
            D::Error::custom(format!(
                "{text:?} is no time: a number or a percentage of lifetime, overlap, timeout, retry, cooldown or s"
            ))
        };
        Self::parse(&text).ok_or_else(problem)
    }
}
