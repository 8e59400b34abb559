//! Limits of a VM by the names of their keys: how a rule, `[default]` and an operator (`vm.set`) change them, and how
//! they are shown. One reader and one writer for all three.

use super::keys::LIMITS;
use super::layers::Raw;
use super::value;
use crate::vm::{Class, Limits, Policy};

/// A limit that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the limit.
    pub key: &'static str,
    /// Before, as text.
    pub old: String,
    /// After, as text.
    pub new: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)
    }
}

/// Sets one limit.
///
/// # Errors
/// What is wrong with the value, or that there is no such limit.
pub fn set(limits: &mut Limits, key: &str, raw: &Raw) -> Result<(), String> {
    match key {
        "weight" => limits.weight = value::weight(raw)?,
        "gpu_max" => limits.gpu_max = value::gpu_max(raw)?,
        "tier" => limits.tier = value::tier(raw)?,
        "class" => limits.class = value::class(raw)?,
        "memory_max" => limits.memory_max = value::memory_max(raw)?,
        "memory_min" => limits.memory_min = value::memory_min(raw)?,
        "max_processes" => limits.max_processes = value::count_max(raw)?,
        "max_streams" => limits.max_streams = value::count_max(raw)?,
        "unchecked" => limits.unchecked = value::policy(raw)? == Policy::Allow,
        "latency_critical" => limits.latency_critical = value::policy(raw)? == Policy::Allow,
        _ => {
            let names: Vec<&str> = LIMITS.iter().map(|key| key.name).collect();
            return Err(format!("'{key}' is no limit; there are {}", names.join(", ")));
        }
    }
    Ok(())
}

/// A limit as a configuration would write it.
#[must_use]
pub fn text(limits: &Limits, key: &str) -> String {
    let or_max = |number: Option<u64>| number.map_or_else(|| "max".to_owned(), |number| number.to_string());
    match key {
        "weight" => limits.weight.to_string(),
        "gpu_max" => limits.gpu_max.to_string(),
        "tier" => limits.tier.name().to_owned(),
        "class" => limits.class.map_or("auto", Class::name).to_owned(),
        "memory_max" => or_max(limits.memory_max),
        "memory_min" => limits.memory_min.to_string(),
        "max_processes" => or_max(limits.max_processes.map(u64::from)),
        "max_streams" => or_max(limits.max_streams.map(u64::from)),
        "unchecked" => Policy::of(limits.unchecked).name().to_owned(),
        "latency_critical" => Policy::of(limits.latency_critical).name().to_owned(),
        _ => String::new(),
    }
}

/// Takes one limit over.
pub fn copy(from: &Limits, to: &mut Limits, key: &str) {
    let written = set(to, key, &Raw::Text(text(from, key)));
    debug_assert!(written.is_ok(), "{key}: {written:?}");
}

/// Every limit that differs.
#[must_use]
pub fn differences(old: &Limits, new: &Limits) -> Vec<Difference> {
    LIMITS
        .iter()
        .map(|key| Difference { key: key.name, old: text(old, key.name), new: text(new, key.name) })
        .filter(|difference| difference.old != difference.new)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Tier;

    #[test]
    fn every_limit_is_read_as_it_is_written() {
        let all = Limits {
            weight: 7,
            gpu_max: "10%".parse().unwrap(),
            tier: Tier::Idle,
            class: Some(Class::Batch),
            memory_max: Some(3 << 20),
            memory_min: 1 << 20,
            max_processes: Some(2),
            max_streams: Some(5),
            unchecked: true,
            latency_critical: true,
        };
        assert_eq!(differences(&Limits::default(), &all).len(), LIMITS.len(), "a limit has no text");
        let mut limits = Limits::default();
        for key in LIMITS {
            copy(&all, &mut limits, key.name);
        }
        assert_eq!(limits, all);
        assert!(set(&mut limits, "wieght", &Raw::Integer(1)).unwrap_err().contains("weight, gpu_max"));
    }
}
