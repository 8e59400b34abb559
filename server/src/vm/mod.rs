//! A VM: who it is and what it may use. The live ones are in [`registry`].
//!
//! Words and units are cgroup v2's: weights from 1 to 10000, a hard cap as quota and period in microseconds, `max` for
//! no limit (design D10).

pub mod gpus;
pub mod registry;

use gpus::Gpus;
use pxos_protocol::admin;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Least and greatest weight (cgroup v2, `cpu.weight`).
pub const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=10_000;
/// Period of a hard cap where nobody names one, in microseconds (cgroup v2, `cpu.max`).
pub const PERIOD: u64 = 100_000;
/// Least and greatest period of a hard cap in microseconds (cgroup v2's: 1 ms to 1 s).
pub const PERIODS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;

/// What a VM may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Share of a contended device against the other VMs' weights: [`WEIGHTS`].
    pub weight: u32,
    /// Hard cap on time of each device.
    pub gpu_max: GpuMax,
    /// Which VMs it goes before.
    pub tier: Tier,
    /// What kind of work it does, where the operator says so; `None` lets the server find out.
    pub class: Option<Class>,
    /// Device memory in bytes that all its processes together may hold; `None` for no limit.
    pub memory_max: Option<u64>,
    /// Bytes of its device's memory that no other VM can take from it, whether it holds them or not.
    pub memory_min: u64,
    /// Guest processes with a session at once; `None` for no limit.
    pub max_processes: Option<u32>,
    /// Streams of all its processes together; `None` for no limit.
    pub max_streams: Option<u32>,
    /// Whether its primitives may leave bounds checks out with UNCHECKED.
    pub unchecked: bool,
    /// Whether its primitives marked LATENCY_CRITICAL go with the latency tier, within the same budget.
    pub latency_critical: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            weight: 100,
            gpu_max: GpuMax::NONE,
            tier: Tier::Normal,
            class: None,
            memory_max: None,
            memory_min: 0,
            max_processes: None,
            max_streams: None,
            unchecked: false,
            latency_critical: false,
        }
    }
}

/// A hard cap: at most `quota` microseconds of a device's time in each `period` microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuMax {
    /// Microseconds, at most the period; `None` for no cap.
    pub quota: Option<u64>,
    /// Microseconds: [`PERIODS`].
    pub period: u64,
}

impl GpuMax {
    /// No cap.
    pub const NONE: Self = Self { quota: None, period: PERIOD };

    /// The cap as a fraction of a device, 1 where there is none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "both are at most a million")]
    pub fn fraction(self) -> f64 {
        self.quota.map_or(1.0, |quota| quota as f64 / self.period as f64)
    }
}

impl fmt::Display for GpuMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.quota {
            Some(quota) => write!(f, "{quota} {}", self.period),
            None => write!(f, "max {}", self.period),
        }
    }
}

impl FromStr for GpuMax {
    type Err = String;

    /// `max`, `25%`, `25000` or `25000 100000`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a cap such as max, 25% or \"25000 100000\" (microseconds)");
        let mut words = text.split_whitespace();
        let (Some(quota), period, None) = (words.next(), words.next(), words.next()) else {
            return Err(wrong());
        };
        let period = period.map_or(Ok(PERIOD), str::parse).map_err(|_| wrong())?;
        if !PERIODS.contains(&period) {
            return Err(format!(
                "a period of {period} µs is not from {} to {}",
                PERIODS.start(),
                PERIODS.end()
            ));
        }
        let quota = match (quota, quota.strip_suffix('%')) {
            ("max", _) => return Ok(Self { quota: None, period }),
            (_, Some(percent)) => {
                let percent: f64 = percent.parse().map_err(|_| wrong())?;
                if !(percent > 0.0 && percent <= 100.0) {
                    return Err(format!("{percent} % is not more than 0 % and at most 100 %"));
                }
                of_period(percent, period)
            }
            (number, None) => number.parse().map_err(|_| wrong())?,
        };
        if quota == 0 || quota > period {
            return Err(format!("a quota of {quota} µs is not from 1 to its period of {period} µs"));
        }
        Ok(Self { quota: Some(quota), period })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a percentage from 0 to 100 of at most a million"
)]
fn of_period(percent: f64, period: u64) -> u64 {
    ((period as f64 * percent / 100.0).round() as u64).max(1)
}

/// Which VMs go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Before all others, within a budget.
    Latency,
    /// By weight.
    Normal,
    /// When nobody else wants the device.
    Idle,
}

impl Tier {
    /// All, first to last.
    pub const ALL: [Self; 3] = [Self::Latency, Self::Normal, Self::Idle];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Normal => "normal",
            Self::Idle => "idle",
        }
    }
}

/// What kind of work a VM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Short kernels at regular times that must not wait.
    Realtime,
    /// Bursts that somebody waits for.
    Interactive,
    /// Keeps the device busy with short kernels or copies.
    Throughput,
    /// Keeps the device busy with long kernels.
    Batch,
}

impl Class {
    /// All.
    pub const ALL: [Self; 4] = [Self::Realtime, Self::Interactive, Self::Throughput, Self::Batch];

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Interactive => "interactive",
            Self::Throughput => "throughput",
            Self::Batch => "batch",
        }
    }
}

/// How a VM is recognised: by what the host's kernel says, or by a secret (design D13).
#[derive(Clone, PartialEq, Eq)]
pub enum Identity {
    /// The context id of its vsock device.
    Cid(u32),
    /// The unix socket at which it arrives; the server listens there.
    Socket(PathBuf),
    /// The token that it shows over TCP or TLS.
    Token(String),
    /// A DNS name, in lower case, of the certificate that it shows over TLS.
    Certificate(String),
    /// An endpoint of its own in `listen`: `vm:NAME=/path` or `serial:NAME=/path`.
    Endpoint,
}

impl fmt::Display for Identity {
    /// For logs and reports: says nothing of a token but that there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cid(cid) => write!(f, "cid {cid}"),
            Self::Socket(path) => write!(f, "socket {}", path.display()),
            Self::Token(_) => f.write_str("token"),
            Self::Certificate(name) => write!(f, "certificate {name}"),
            Self::Endpoint => f.write_str("endpoint of its own"),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// Whether a guest may do something, such as connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

impl Policy {
    /// `Allow` where it is allowed.
    #[must_use]
    pub fn of(allowed: bool) -> Self {
        if allowed { Self::Allow } else { Self::Deny }
    }

    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What is said of a VM that has a name of its own: a rule of the configuration, or one that an operator made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, in the log, the status and `pxctl`.
    pub name: String,
    /// How it is recognised.
    pub identity: Identity,
    /// What it may do.
    pub rights: Rights,
}

/// What a guest may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Whether it may connect.
    pub policy: Policy,
    /// Which devices it sees.
    pub gpus: Gpus,
    /// What it may use.
    pub limits: Limits,
}

impl Rights {
    /// Whether they agree with each other.
    ///
    /// # Errors
    /// That they do not, and how.
    pub fn check(&self) -> Result<(), String> {
        let Limits { memory_min, memory_max, .. } = self.limits;
        match memory_max {
            Some(most) if memory_min > most => {
                Err(format!("a memory_min of {memory_min} is more than its memory_max of {most}"))
            }
            _ => Ok(()),
        }
    }
}

impl Default for Rights {
    fn default() -> Self {
        Self { policy: Policy::Allow, gpus: Gpus::All, limits: Limits::default() }
    }
}

impl From<Limits> for admin::Limits {
    fn from(limits: Limits) -> Self {
        Self {
            weight: limits.weight,
            gpu_max: limits.gpu_max.to_string(),
            tier: limits.tier.name().to_owned(),
            class: limits.class.map_or("auto", Class::name).to_owned(),
            memory_max: limits.memory_max,
            memory_min: limits.memory_min,
            max_processes: limits.max_processes,
            max_streams: limits.max_streams,
            unchecked: Policy::of(limits.unchecked).name().to_owned(),
            latency_critical: Policy::of(limits.latency_critical).name().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_read_as_cgroups_writes_them() {
        let cap = |text: &str| text.parse::<GpuMax>();
        assert_eq!(cap("max"), Ok(GpuMax::NONE));
        assert_eq!(cap("max 50000"), Ok(GpuMax { quota: None, period: 50_000 }));
        assert_eq!(cap("25%"), Ok(GpuMax { quota: Some(25_000), period: 100_000 }));
        assert_eq!(cap("12.5% 20000"), Ok(GpuMax { quota: Some(2_500), period: 20_000 }));
        assert_eq!(cap("10000"), Ok(GpuMax { quota: Some(10_000), period: 100_000 }));
        assert_eq!(cap(" 500  1000 "), Ok(GpuMax { quota: Some(500), period: 1_000 }));
        for wrong in
            ["", "0", "0%", "101%", "-5%", "nan%", "100001", "1 999", "1 1000001", "1 2 3", "50 %", "x"]
        {
            assert!(cap(wrong).is_err(), "{wrong}");
        }
        for text in ["max 100000", "500 1000"] {
            assert_eq!(cap(text).unwrap().to_string(), text);
        }
        assert!((cap("25%").unwrap().fraction() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn a_token_is_never_shown() {
        let identity = Identity::Token("0123456789abcdef".into());
        assert!(!format!("{identity} {identity:?}").contains("0123"));
    }
}
