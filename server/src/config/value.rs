//! What one value means: each function takes a value of the file, a flag or a variable, and says what is wrong with it.

use super::layers::Raw;
use super::{DriverChoice, LogFormat, LogOutput, SYSLOG, SharedFile};
use crate::vm::gpus::Gpus;
use crate::vm::{Class, GpuMax, Policy, Tier, WEIGHTS};
use pxos_protocol::endpoint::{Endpoint, named_path};
use pxos_protocol::transport::bar::MAX_SLOTS;
use std::path::PathBuf;
use std::time::Duration;

/// Shortest token: what can be guessed is no token.
const TOKEN_LENGTH: usize = 16;

fn text<'a>(raw: &'a Raw, wanted: &str) -> Result<&'a str, String> {
    match raw {
        Raw::Text(text) => Ok(text.trim()),
        other => Err(format!("{other} is not {wanted}")),
    }
}

fn one_of<T: Copy>(raw: &Raw, words: &[(&str, T)]) -> Result<T, String> {
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let wanted = format!("one of {}", names.join(", "));
    let word = text(raw, &wanted)?;
    let found = words.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    found.map(|(_, value)| *value).ok_or_else(|| format!("{raw} is not {wanted}"))
}

fn number(raw: &Raw) -> Result<u64, String> {
    let number = match raw {
        Raw::Integer(number) => u64::try_from(*number).ok(),
        Raw::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| format!("{raw} is not a whole number"))
}

/// A number of things, zero included.
pub(super) fn count_or_zero(raw: &Raw) -> Result<usize, String> {
    let count = number(raw)?;
    // More than this many processes or connections is a mistake, not a wish.
    if count > 65_536 {
        Err(format!("{count} is more than 65536"))
    } else {
        Ok(usize::try_from(count).expect("bounded"))
    }
}

/// A number of things, at least one.
pub(super) fn count(raw: &Raw) -> Result<usize, String> {
    match count_or_zero(raw)? {
        0 => Err("0 is less than 1".into()),
        count => Ok(count),
    }
}

/// A truth value.
pub(super) fn boolean(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Boolean(truth) => Ok(*truth),
        Raw::Text(_) => one_of(raw, &[("true", true), ("false", false)]),
        other => Err(format!("{other} is not true or false")),
    }
}

/// A time: a number of seconds, or a text with `ms`, `s`, `m` or `h`.
pub(super) fn duration_or_zero(raw: &Raw) -> Result<Duration, String> {
    let wanted = || format!("{raw} is not a time such as 500ms, 10s, 2m or 1h");
    if let Raw::Integer(_) = raw {
        return number(raw).map(Duration::from_secs).and_then(bounded);
    }
    let text = text(raw, "a time such as 500ms, 10s, 2m or 1h")?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.trim().parse().map_err(|_| wanted())?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(wanted()),
    };
    bounded(Duration::from_millis(milliseconds.ok_or_else(wanted)?))
}

fn bounded(duration: Duration) -> Result<Duration, String> {
    const DAY: Duration = Duration::from_secs(86_400);
    if duration > DAY { Err(format!("{} s is more than a day", duration.as_secs())) } else { Ok(duration) }
}

/// A time that is not zero.
pub(super) fn duration(raw: &Raw) -> Result<Duration, String> {
    match duration_or_zero(raw)? {
        Duration::ZERO => Err("the time must not be zero".into()),
        duration => Ok(duration),
    }
}

/// The rule by which devices are shared.
pub(super) fn scheduling(raw: &Raw) -> Result<crate::scheduler::Policy, String> {
    text(raw, "leasefq, fifo or rr")?.parse()
}

/// The length of a lease.
pub(super) fn quantum(raw: &Raw) -> Result<Duration, String> {
    let quantum = duration(raw)?;
    let [least, most] =
        [crate::scheduler::QUANTUM_LEAST, crate::scheduler::QUANTUM_MOST].map(Duration::from_nanos);
    if (least..=most).contains(&quantum) {
        Ok(quantum)
    } else {
        Err(format!("{quantum:?} is not from {least:?} to {most:?}"))
    }
}

/// An amount of memory: bytes, or a text with `K`, `M`, `G` or `T` (powers of 1024).
fn memory(raw: &Raw, wanted: &str) -> Result<u64, String> {
    let wanted = || format!("{raw} is not an amount of memory such as {wanted}");
    match raw {
        Raw::Integer(_) => number(raw),
        Raw::Text(text) => {
            let text = text.trim().trim_end_matches("iB").trim_end_matches('B');
            let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let number: u64 = digits.trim().parse().map_err(|_| wanted())?;
            let unit: u64 = match &text[digits.len()..] {
                "" => 1,
                "K" | "k" => 1 << 10,
                "M" => 1 << 20,
                "G" => 1 << 30,
                "T" => 1 << 40,
                _ => return Err(wanted()),
            };
            number.checked_mul(unit).ok_or_else(wanted)
        }
        _ => Err(wanted()),
    }
}

/// An amount of memory that is promised.
pub(super) fn memory_min(raw: &Raw) -> Result<u64, String> {
    memory(raw, "512M, 4G or 0")
}

/// An amount of memory, or `max` for no limit.
pub(super) fn memory_max(raw: &Raw) -> Result<Option<u64>, String> {
    let bytes = match raw {
        Raw::Text(text) if text.trim() == "max" => return Ok(None),
        raw => memory(raw, "512M, 4G or max")?,
    };
    // Zero means "no limit" on the stats page, and a VM that may hold nothing is one that is denied.
    if bytes == 0 {
        Err("0 bytes would refuse everything; say policy = \"deny\"".into())
    } else {
        Ok(Some(bytes))
    }
}

/// A number of things, at least one, or `max` for no limit.
pub(super) fn count_max(raw: &Raw) -> Result<Option<u32>, String> {
    match raw {
        Raw::Text(text) if text.trim() == "max" => Ok(None),
        other => count(other).map(|count| Some(u32::try_from(count).expect("at most 65536"))),
    }
}

/// A share.
pub(super) fn weight(raw: &Raw) -> Result<u32, String> {
    let weight = u32::try_from(number(raw)?).ok().filter(|weight| WEIGHTS.contains(weight));
    weight.ok_or_else(|| format!("{raw} is not a weight from {} to {}", WEIGHTS.start(), WEIGHTS.end()))
}

/// A hard cap on time.
pub(super) fn gpu_max(raw: &Raw) -> Result<GpuMax, String> {
    match raw {
        Raw::Integer(quota) => quota.to_string().parse(),
        other => text(other, "a cap such as max, 25% or \"25000 100000\"")?.parse(),
    }
}

/// Who goes first.
pub(super) fn tier(raw: &Raw) -> Result<Tier, String> {
    one_of(raw, &Tier::ALL.map(|tier| (tier.name(), tier)))
}

/// What kind of work, or that the server finds out.
pub(super) fn class(raw: &Raw) -> Result<Option<Class>, String> {
    let classes = Class::ALL.map(|class| (class.name(), Some(class)));
    one_of(raw, &[&[("auto", None)], &classes[..]].concat())
}

/// Permissions in octal: a text, or a number of the file written as `0o660`.
pub(super) fn mode(raw: &Raw) -> Result<u32, String> {
    let mode = match raw {
        Raw::Text(text) => u32::from_str_radix(text.trim().trim_start_matches("0o"), 8).ok(),
        Raw::Integer(number) => u32::try_from(*number).ok(),
        _ => None,
    };
    mode.filter(|mode| *mode <= 0o777).ok_or_else(|| format!("{raw} is not a mode such as \"0660\""))
}

/// A place in the file system.
pub(super) fn path(raw: &Raw) -> Result<PathBuf, String> {
    match text(raw, "a path")? {
        "" => Err("the path is missing".into()),
        text => Ok(text.into()),
    }
}

/// A place in the file system that does not depend on where the daemon was started.
pub(super) fn absolute_path(raw: &Raw) -> Result<PathBuf, String> {
    let path = path(raw)?;
    if path.is_absolute() { Ok(path) } else { Err(format!("{raw} is not an absolute path")) }
}

/// As [`absolute_path`], or nothing.
pub(super) fn optional_path(raw: &Raw) -> Result<Option<PathBuf>, String> {
    if text(raw, "a path")?.is_empty() { Ok(None) } else { absolute_path(raw).map(Some) }
}

/// A name as certificates have it, in lower case.
pub(super) fn dns_name(raw: &Raw) -> Result<String, String> {
    let wanted = "a DNS name such as red.vm.example";
    let name = text(raw, wanted)?;
    let good = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() > 253 || !name.split('.').all(good) {
        return Err(format!("{raw} is not {wanted}"));
    }
    Ok(name.to_ascii_lowercase())
}

/// Where guests connect.
pub(super) fn endpoint(raw: &Raw) -> Result<Endpoint, String> {
    let text = text(raw, "an endpoint such as unix:/run/pxos-gpu.sock")?;
    text.parse().map_err(|error: pxos_protocol::endpoint::EndpointError| error.to_string())
}

/// A VM and the file of its shared memory.
pub(super) fn shared(raw: &Raw) -> Result<SharedFile, String> {
    let wanted = "a VM and a file, such as red=/dev/shm/red";
    let text = text(raw, wanted)?;
    let (name, path) = text.split_once('=').ok_or_else(|| format!("{raw} is not {wanted}"))?;
    let (name, slots) = match name.split_once(':') {
        None => (name, None),
        Some((name, slots)) => {
            let slots = slots.parse().ok().filter(|slots| (1..=MAX_SLOTS).contains(slots));
            (name, Some(slots.ok_or_else(|| format!("{raw}: the number of slots is 1 to {MAX_SLOTS}"))?))
        }
    };
    let (vm, path) = named_path(name, path).map_err(|error| format!("{raw}: {error}"))?;
    Ok(SharedFile { vm, path, slots })
}

/// An address of the web, or nothing.
pub(super) fn url(raw: &Raw) -> Result<String, String> {
    let text = text(raw, "an address such as http://127.0.0.1:8000/v1")?;
    let good = text.is_empty() || text.starts_with("http://") || text.starts_with("https://");
    if good && !text.contains(char::is_whitespace) {
        Ok(text.to_owned())
    } else {
        Err(format!("{raw} is not an address such as http://127.0.0.1:8000/v1"))
    }
}

/// Any text.
pub(super) fn word(raw: &Raw) -> Result<String, String> {
    text(raw, "a text").map(str::to_owned)
}

/// An address and a port, or nothing.
pub(super) fn address(raw: &Raw) -> Result<Option<std::net::SocketAddr>, String> {
    match text(raw, "an address such as 127.0.0.1:9701")? {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("{raw} is not an address such as 127.0.0.1:9701")),
    }
}

/// Which libcuda.
pub(super) fn driver(raw: &Raw) -> Result<DriverChoice, String> {
    match text(raw, "auto, soft or a path")? {
        "auto" => Ok(DriverChoice::Auto),
        "soft" => Ok(DriverChoice::Soft),
        // A bare name is looked up by the dynamic linker; a word without a dot is a misspelt choice.
        name if name.contains('/') || name.contains(".so") => Ok(DriverChoice::Path(name.into())),
        _ => Err(format!("{raw} is not auto, soft or the path of a libcuda")),
    }
}

/// The words of a list of devices: a list, a text with commas, or one number.
fn device_words(raw: &Raw) -> Result<Vec<String>, String> {
    match raw {
        Raw::Text(text) => Ok(text.split(',').map(|word| word.trim().to_owned()).collect()),
        Raw::Integer(number) => Ok(vec![number.to_string()]),
        Raw::List(entries) => entries
            .iter()
            .map(|(_, entry)| match entry {
                Raw::Text(text) => Ok(text.trim().to_owned()),
                Raw::Integer(number) => Ok(number.to_string()),
                other => Err(format!("{other} is not a device")),
            })
            .collect(),
        other => Err(format!("{other} is not a list of devices")),
    }
}

/// Devices that a VM sees.
pub(super) fn gpus(raw: &Raw) -> Result<Gpus, String> {
    match device_words(raw)? {
        words if words.is_empty() => {
            Err("the list is empty; policy = \"deny\" is for a VM that is to have no device".into())
        }
        words => words.join(",").parse(),
    }
}

/// Devices by ordinal or UUID.
pub(super) fn devices(raw: &Raw) -> Result<Option<String>, String> {
    let words = device_words(raw)?;
    if words == ["all"] {
        return Ok(None);
    }
    let good = |word: &String| {
        let id = word.strip_prefix("GPU-").or_else(|| word.strip_prefix("MIG-"));
        word.parse::<u16>().is_ok()
            || id.is_some_and(|id| {
                !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
            })
    };
    match words.iter().find(|word| !good(word)) {
        Some(word) => Err(format!("'{word}' is neither an ordinal nor a UUID that begins with GPU- or MIG-")),
        None if words.is_empty() => Err("the list is empty; say all for all devices".into()),
        None => Ok(Some(words.join(","))),
    }
}

/// What is logged.
pub(super) fn level(raw: &Raw) -> Result<tracing::Level, String> {
    use tracing::Level;
    one_of(
        raw,
        &[
            ("error", Level::ERROR),
            ("warn", Level::WARN),
            ("info", Level::INFO),
            ("debug", Level::DEBUG),
            ("trace", Level::TRACE),
        ],
    )
}

/// Form of the log.
pub(super) fn format(raw: &Raw) -> Result<LogFormat, String> {
    one_of(raw, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

/// Where the log goes.
pub(super) fn output(raw: &Raw) -> Result<LogOutput, String> {
    let wanted = "stderr, syslog or an absolute path";
    match text(raw, wanted)? {
        "stderr" => Ok(LogOutput::Stderr),
        "syslog" => Ok(LogOutput::Syslog(SYSLOG.into())),
        text if text.starts_with('/') => Ok(LogOutput::File(text.into())),
        text => match text.strip_prefix("syslog:").filter(|path| path.starts_with('/')) {
            Some(path) => Ok(LogOutput::Syslog(path.into())),
            None => Err(format!("{raw} is not {wanted}")),
        },
    }
}

/// Whether somebody may connect.
pub(super) fn policy(raw: &Raw) -> Result<Policy, String> {
    one_of(raw, &[("allow", Policy::Allow), ("deny", Policy::Deny)])
}

/// A secret. The error does not repeat it.
pub(super) fn token(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) if text.len() < TOKEN_LENGTH => {
            Err(format!("the token has {} characters, fewer than {TOKEN_LENGTH}", text.len()))
        }
        Raw::Text(text) if text.len() > 256 => Err("the token has more than 256 characters".into()),
        Raw::Text(text) => Ok(text.clone()),
        _ => Err("a token is a text".into()),
    }
}

/// A secret, or none where the text is empty.
pub(super) fn optional_token(raw: &Raw) -> Result<Option<String>, String> {
    match raw {
        Raw::Text(text) if text.is_empty() => Ok(None),
        _ => token(raw).map(Some),
    }
}

/// A VM's name: no character that the names of unnamed guests (`vsock:3`) have, none that harms a log.
pub(super) fn vm_name(raw: &Raw) -> Result<String, String> {
    let name = text(raw, "a name")?;
    if !pxos_protocol::endpoint::is_vm_name(name) {
        return Err(format!("{raw} is not a name of 1 to 64 letters, digits, dots, dashes and underscores"));
    }
    Ok(name.to_owned())
}

/// A context id that a guest can have: not the hypervisor (0), not the host (2), not "any".
pub(super) fn cid(raw: &Raw) -> Result<u32, String> {
    let cid = u32::try_from(number(raw)?).ok().filter(|cid| ![0, 2, u32::MAX].contains(cid));
    cid.ok_or_else(|| format!("{raw} is not the context id of a guest (3 and above)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(duration(&text("500ms")), Ok(Duration::from_millis(500)));
        assert_eq!(duration(&text("2 m")), Ok(Duration::from_secs(120)));
        assert_eq!(duration(&Raw::Integer(7)), Ok(Duration::from_secs(7)));
        for wrong in ["", "s", "1d", "-1s", "1.5s", "99999999999999999999s", "0s", "25h"] {
            assert!(duration(&text(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(memory_max(&text("max")), Ok(None));
        assert_eq!(memory_max(&text("4G")), Ok(Some(4 << 30)));
        assert_eq!(memory_max(&text("4GiB")), Ok(Some(4 << 30)));
        assert_eq!(memory_max(&Raw::Integer(4096)), Ok(Some(4096)));
        for wrong in ["", "4X", "G", "-4G", "99999999999T", "0"] {
            assert!(memory_max(&text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_devices_and_modes() {
        assert_eq!(mode(&text("0660")), Ok(0o660));
        assert_eq!(mode(&text("0o600")), Ok(0o600));
        assert!(mode(&text("0999")).is_err());
        assert!(mode(&text("7777")).is_err());
        assert_eq!(devices(&text("all")), Ok(None));
        assert_eq!(devices(&text("0, 1")), Ok(Some("0,1".into())));
        assert!(devices(&text("GPU-")).is_err());
        assert_eq!(devices(&text("GPU-1a2b")), Ok(Some("GPU-1a2b".into())));
        assert!(devices(&text("nvidia0")).is_err());
        assert_eq!(vm_name(&text("red-1")), Ok("red-1".into()));
        for wrong in ["", "vsock:3", "a b", "\u{1b}[31m"] {
            assert!(vm_name(&text(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(cid(&Raw::Integer(3)), Ok(3));
        for wrong in [0, 2, -1, i64::from(u32::MAX), 1 << 40] {
            assert!(cid(&Raw::Integer(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(driver(&text("libcuda.so.1")), Ok(DriverChoice::Path("libcuda.so.1".into())));
        assert_eq!(dns_name(&text("Red.VM")), Ok("red.vm".into()));
        for wrong in ["", "a..b", "a b", "*.vm", "ü"] {
            assert!(dns_name(&text(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(optional_path(&text("")), Ok(None));
        assert!(optional_path(&text("ca.pem")).is_err());
        assert!(driver(&text("sotf")).is_err());
        for good in ["stderr", "syslog", "syslog:/run/log.sock", "/var/log/pxos/server.log"] {
            assert_eq!(output(&text(good)).unwrap().to_string(), good);
        }
        assert!(output(&text("server.log")).is_err() && output(&text("syslog:")).is_err());
        let error = token(&text("short-secret")).unwrap_err();
        assert!(!error.contains("short-secret"), "{error}");
    }
}
