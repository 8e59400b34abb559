//! The VMs that the daemon knows: those with a rule, those that an operator made, and guests that no rule names.
//!
//! Each holds its rights as they are now. The configuration gives their base; an operator may change them while the VM
//! runs. A reload changes what differs between the old and the new configuration and leaves the rest as the operator set
//! it. Whoever decides by limits reads [`Vm::limits`] each time, so that a change counts at once.

use super::{Identity, Limits, Policy, Rights, Rule};
use crate::config::keys::LIMITS;
use crate::config::layers::Raw;
use crate::config::{Config, limits, parse_gpus, parse_policy};
use crate::quota::Quota;
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where a VM comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A `[[vm]]` of the configuration.
    Rule,
    /// An operator made it; it lasts as long as the daemon.
    Operator,
    /// No rule names it; it has the default's rights.
    Stranger,
}

impl Origin {
    /// Its word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Operator => "operator",
            Self::Stranger => "default",
        }
    }
}

/// A VM.
#[derive(Debug)]
pub struct Vm {
    /// Its name: a rule's, or one made of the connection, which no rule can have.
    pub name: String,
    /// A number that no other VM of this daemon ever has.
    pub number: u64,
    /// The device memory of its sessions.
    pub quota: Quota,
    state: RwLock<State>,
    draining: AtomicBool,
    /// Whether the overhead of contexts counts against its quota.
    charges_context: AtomicBool,
}

#[derive(Debug)]
struct State {
    origin: Origin,
    identity: Option<Identity>,
    /// What the configuration, or the operator at its creation, said last.
    base: Rights,
    /// What holds.
    live: Rights,
}

impl Vm {
    /// What it may do, now.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.state.read().live.clone()
    }

    /// What it may use, now.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.state.read().live.limits
    }

    /// As [`Self::limits`], with the preset of the class that the operator has pinned.
    #[must_use]
    pub fn effective_limits(&self) -> Limits {
        let limits = self.limits();
        crate::classify::preset(limits, limits.class)
    }

    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.state.read().origin
    }

    /// How it is recognised; `None` where no rule names it.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.state.read().identity.clone()
    }

    /// Whether it gets no more sessions, because an operator drains it.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Says whether it gets more sessions.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Changes what it may do. Returns what differs, as `key: old -> new`.
    fn set(&self, rights: Rights) -> Vec<String> {
        let mut state = self.state.write();
        let lines = differences(&state.live, &rights);
        state.live = rights;
        self.publish(&state);
        lines
    }

    /// What it may do once a new configuration says `base` of it: what that says otherwise than the old one is taken over.
    fn rebased(&self, base: &Rights) -> Rights {
        let state = self.state.read();
        let (old, mut live) = (&state.base, state.live.clone());
        for difference in limits::differences(&old.limits, &base.limits) {
            limits::copy(&base.limits, &mut live.limits, difference.key);
        }
        if old.policy != base.policy {
            live.policy = base.policy;
        }
        if old.gpus != base.gpus {
            live.gpus = base.gpus.clone();
        }
        live
    }

    /// Takes over what a new configuration says otherwise than the old one. Returns what differs now.
    fn rebase(&self, base: &Rights, identity: Option<&Identity>) -> Vec<String> {
        let live = self.rebased(base);
        let mut state = self.state.write();
        let lines = differences(&state.live, &live);
        state.base = base.clone();
        state.live = live;
        state.identity = identity.cloned();
        self.publish(&state);
        lines
    }

    /// Tells the workers, which read it with their next allocation.
    fn publish(&self, state: &State) {
        let limits = state.live.limits;
        let charges = self.charges_context.load(Ordering::Relaxed);
        self.quota.set_limits(limits.memory_max, limits.max_streams, charges);
    }

    fn rule(&self) -> Option<Rule> {
        let state = self.state.read();
        let identity = state.identity.clone()?;
        Some(Rule { name: self.name.clone(), identity, rights: state.live.clone() })
    }
}

/// Applies `key = value` pairs to rights.
///
/// # Errors
/// Every mistake, a line each.
pub fn change(rights: &mut Rights, changes: &BTreeMap<String, Raw>) -> Result<(), String> {
    let mut problems = Vec::new();
    for (key, raw) in changes {
        // `memory.max` is what cgroup v2 calls it, and what an operator may type.
        let key = key.replace('.', "_");
        let done = match key.as_str() {
            "policy" => parse_policy(raw).map(|policy| rights.policy = policy),
            "gpus" => parse_gpus(raw).map(|gpus| rights.gpus = gpus),
            key => limits::set(&mut rights.limits, key, raw),
        };
        if let Err(message) = done {
            problems.push(format!("{key}: {message}"));
        }
    }
    if problems.is_empty() { rights.check() } else { Err(problems.join("; ")) }
}

fn differences(old: &Rights, new: &Rights) -> Vec<String> {
    let mut lines: Vec<String> =
        limits::differences(&old.limits, &new.limits).iter().map(ToString::to_string).collect();
    if old.policy != new.policy {
        lines.push(format!("policy: {} -> {}", old.policy.name(), new.policy.name()));
    }
    if old.gpus != new.gpus {
        lines.push(format!("gpus: {} -> {}", old.gpus, new.gpus));
    }
    lines
}

/// All VMs.
#[derive(Debug, Default)]
pub struct Registry {
    vms: RwLock<BTreeMap<String, Arc<Vm>>>,
    last: AtomicU64,
    /// Of VMs that come.
    charges_context: AtomicBool,
    /// One reload or change of the set at a time.
    changing: Mutex<()>,
}

/// What a reload did to one VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The VM.
    pub vm: String,
    /// `key: old -> new`, or a word on the VM as a whole.
    pub text: String,
}

/// The registry while nobody else changes rights: what is checked still holds when it is done.
#[derive(Debug)]
pub struct Changing<'a> {
    registry: &'a Registry,
    _one: MutexGuard<'a, ()>,
}

/// Every VM with rights that it has, or is to have.
pub type Plan = Vec<(String, Rights)>;

impl Changing<'_> {
    /// All VMs and their rights, as [`Self::load`] with the same arguments would leave them.
    pub fn plan(&self, config: &Config, busy: impl Fn(&str) -> bool) -> Plan {
        let vms = self.registry.vms.read();
        let mut plan: Plan = Vec::new();
        for rule in &config.vms {
            let known = vms.get(&rule.name);
            let rights = known.map_or_else(|| rule.rights.clone(), |vm| vm.rebased(&rule.rights));
            plan.push((rule.name.clone(), rights));
        }
        for (name, vm) in &*vms {
            let origin = vm.origin();
            if config.vms.iter().any(|rule| rule.name == *name) || (origin == Origin::Rule && !busy(name)) {
                continue;
            }
            let is_operators = origin == Origin::Operator;
            let rights = if is_operators { vm.rights() } else { vm.rebased(&config.default) };
            plan.push((name.clone(), rights));
        }
        plan
    }

    /// All VMs and their rights, with these rights for one, which may be new.
    #[must_use]
    pub fn with(&self, name: &str, rights: &Rights) -> Plan {
        let others = self.registry.all().into_iter().filter(|vm| vm.name != name);
        let mut plan: Plan = others.map(|vm| (vm.name.clone(), vm.rights())).collect();
        plan.push((name.to_owned(), rights.clone()));
        plan
    }

    /// Changes what a VM may do. Returns what differs, as `key: old -> new`.
    #[must_use]
    pub fn set(&self, vm: &Vm, rights: Rights) -> Vec<String> {
        vm.set(rights)
    }

    /// Brings the registry in line with a configuration that is known to be good. VMs whose rule is gone become
    /// strangers while they have sessions (`busy`), and go otherwise. Returns what changed.
    ///
    /// # Errors
    /// The operating system's, which has no memory for a quota's page.
    pub fn load(&self, config: &Config, busy: impl Fn(&str) -> bool) -> io::Result<Vec<Change>> {
        let registry = self.registry;
        let mut vms = registry.vms.write();
        registry.charges_context.store(config.charge_context, Ordering::Relaxed);
        for vm in vms.values() {
            vm.charges_context.store(config.charge_context, Ordering::Relaxed);
            vm.publish(&vm.state.read());
        }
        let mut changes = Vec::new();
        let mut note = |vm: &str, text: String| changes.push(Change { vm: vm.to_owned(), text });
        for rule in &config.vms {
            match vms.get(&rule.name) {
                Some(vm) => {
                    vm.state.write().origin = Origin::Rule;
                    for line in vm.rebase(&rule.rights, Some(&rule.identity)) {
                        note(&rule.name, line);
                    }
                }
                None => {
                    let vm = registry.make(
                        &rule.name,
                        Origin::Rule,
                        Some(rule.identity.clone()),
                        rule.rights.clone(),
                    )?;
                    vms.insert(rule.name.clone(), vm);
                    note(&rule.name, "new".into());
                }
            }
        }
        let named = |name: &str| config.vms.iter().any(|rule| rule.name == name);
        vms.retain(|name, vm| {
            let origin = vm.origin();
            if named(name) || origin == Origin::Operator {
                return true;
            }
            if origin == Origin::Rule && !busy(name) {
                note(name, "gone".into());
                return false;
            }
            // What no rule names any more keeps its sessions and falls under the default.
            vm.state.write().origin = Origin::Stranger;
            for line in vm.rebase(&config.default, None) {
                note(name, line);
            }
            true
        });
        Ok(changes)
    }

    /// Adds a VM that no configuration names.
    ///
    /// # Errors
    /// That its name or its identity is another's.
    pub fn create(&self, rule: Rule) -> Result<Arc<Vm>, String> {
        let registry = self.registry;
        let mut vms = registry.vms.write();
        if vms.contains_key(&rule.name) {
            return Err(format!("there is a VM '{}' already", rule.name));
        }
        if let Some(other) = vms.values().find(|vm| vm.identity().as_ref() == Some(&rule.identity)) {
            return Err(format!("VM '{}' is recognised by the same {}", other.name, rule.identity));
        }
        let vm = registry.make(&rule.name, Origin::Operator, Some(rule.identity), rule.rights);
        let vm = vm.map_err(|error| format!("no memory for its quota: {error}"))?;
        vms.insert(rule.name, Arc::clone(&vm));
        Ok(vm)
    }
}

impl Registry {
    /// Keeps others from changing rights.
    pub fn changing(&self) -> Changing<'_> {
        Changing { registry: self, _one: self.changing.lock() }
    }

    fn make(
        &self,
        name: &str,
        origin: Origin,
        identity: Option<Identity>,
        rights: Rights,
    ) -> io::Result<Arc<Vm>> {
        let state = State { origin, identity, base: rights.clone(), live: rights };
        let vm = Vm {
            name: name.to_owned(),
            number: self.last.fetch_add(1, Ordering::Relaxed) + 1,
            quota: Quota::create()?,
            state: RwLock::new(state),
            draining: AtomicBool::new(false),
            charges_context: AtomicBool::new(self.charges_context.load(Ordering::Relaxed)),
        };
        vm.publish(&vm.state.read());
        Ok(Arc::new(vm))
    }

    /// The VM of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Vm>> {
        self.vms.read().get(name).cloned()
    }

    /// The VM of that name, made with the default's rights if no rule names it.
    ///
    /// # Errors
    /// The operating system's, which has no memory for a quota's page.
    pub fn find_or_stranger(&self, name: &str, default: &Rights) -> io::Result<Arc<Vm>> {
        if let Some(vm) = self.find(name) {
            return Ok(vm);
        }
        let mut vms = self.vms.write();
        if let Some(vm) = vms.get(name) {
            return Ok(Arc::clone(vm));
        }
        let vm = self.make(name, Origin::Stranger, None, default.clone())?;
        vms.insert(name.to_owned(), Arc::clone(&vm));
        Ok(vm)
    }

    /// Takes a VM out that has no sessions.
    ///
    /// # Errors
    /// That a rule names it, or that there is none.
    pub fn destroy(&self, name: &str) -> Result<(), String> {
        let _one = self.changing.lock();
        let mut vms = self.vms.write();
        match vms.get(name).map(|vm| vm.origin()) {
            None => Err(format!("there is no VM '{name}'")),
            Some(Origin::Rule) => Err(format!(
                "VM '{name}' stands in the configuration: take its rule out and reload, or drain it"
            )),
            Some(Origin::Operator | Origin::Stranger) => {
                vms.remove(name);
                Ok(())
            }
        }
    }

    /// Forgets a stranger that has no session (`busy`) and the default's rights: nothing is known of it.
    pub fn forget(&self, vm: &Vm, busy: impl FnOnce(&Vm) -> bool) {
        let mut vms = self.vms.write();
        let is_plain = {
            let state = vm.state.read();
            state.origin == Origin::Stranger && state.live == state.base && !vm.is_draining()
        };
        if is_plain && vms.get(&vm.name).is_some_and(|known| known.number == vm.number) && !busy(vm) {
            vms.remove(&vm.name);
        }
    }

    /// All of them, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Vm>> {
        self.vms.read().values().cloned().collect()
    }

    /// Rules by which guests are recognised now, with the rights that they have now.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        self.vms.read().values().filter_map(|vm| vm.rule()).collect()
    }
}

/// Whether a VM of these rights may connect.
#[must_use]
pub fn may_connect(rights: &Rights) -> bool {
    rights.policy == Policy::Allow
}

/// The changes of an operator, as they came over the control socket.
///
/// # Errors
/// That a value is of a kind that no limit takes.
pub fn raw(values: &BTreeMap<String, serde_json::Value>) -> Result<BTreeMap<String, Raw>, String> {
    let known = |key: &str| {
        let key = key.replace('.', "_");
        key == "policy" || key == "gpus" || LIMITS.iter().any(|limit| limit.name == key)
    };
    values
        .iter()
        .map(|(key, value)| {
            let raw = match value {
                serde_json::Value::String(text) => Raw::Text(text.clone()),
                serde_json::Value::Number(number) => {
                    number.as_i64().map_or(Raw::Other("number that is not whole"), Raw::Integer)
                }
                // Devices.
                serde_json::Value::Array(entries) => {
                    let words: Option<Vec<String>> = entries
                        .iter()
                        .map(|entry| {
                            entry
                                .as_str()
                                .map(str::to_owned)
                                .or_else(|| entry.as_u64().map(|n| n.to_string()))
                        })
                        .collect();
                    let words = words.ok_or_else(|| format!("{key}: a list of neither texts nor numbers"))?;
                    Raw::Text(words.join(","))
                }
                // What `vm show` reports as no limit.
                serde_json::Value::Null if known(key) => Raw::Text("max".to_owned()),
                other => return Err(format!("{key}: {other} is neither a text nor a number")),
            };
            Ok((key.clone(), raw))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(text: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let sources = Sources { file: file.path().to_owned(), file_is_named: true, ..Sources::default() };
        Config::load(&sources).unwrap()
    }

    fn set_all(registry: &Registry, vm: &Vm, changes: &BTreeMap<String, Raw>) -> Result<Vec<String>, String> {
        let changing = registry.changing();
        let mut rights = vm.rights();
        change(&mut rights, changes)?;
        Ok(changing.set(vm, rights))
    }

    fn set(registry: &Registry, vm: &Vm, key: &str, value: &str) -> Result<Vec<String>, String> {
        set_all(registry, vm, &[(key.to_owned(), Raw::Text(value.to_owned()))].into())
    }

    fn load(registry: &Registry, text: &str, busy: impl Fn(&str) -> bool) -> Vec<Change> {
        let (config, changing) = (config(text), registry.changing());
        let planned = changing.plan(&config, &busy);
        let changes = changing.load(&config, busy).unwrap();
        for (name, rights) in planned {
            assert_eq!(registry.find(&name).unwrap().rights(), rights, "{name} is not as it was planned");
        }
        changes
    }

    const RED: &str = "[[vm]]\nname = \"red\"\ncid = 3\n";

    #[test]
    fn a_reload_changes_what_the_file_changed_and_nothing_else() {
        let registry = Registry::default();
        load(&registry, &format!("{RED}weight = 200\nmemory_max = \"1G\"\ngpus = [0]\n"), |_| false);
        let red = registry.find("red").unwrap();
        assert_eq!(
            set(&registry, &red, "memory.max", "2G").unwrap(),
            ["memory_max: 1073741824 -> 2147483648"]
        );
        assert_eq!(set(&registry, &red, "weight", "250").unwrap(), ["weight: 200 -> 250"]);
        let new = format!("{RED}weight = 300\nmemory_max = \"1G\"\ntier = \"idle\"\ngpus = [1, 0]\n");
        let changes = load(&registry, &new, |_| true);
        let texts: Vec<&str> = changes.iter().map(|change| change.text.as_str()).collect();
        assert_eq!(texts, ["weight: 250 -> 300", "tier: normal -> idle", "gpus: 0 -> 1,0"]);
        assert_eq!(red.limits().memory_max, Some(2 << 30), "an operator's change stays");
        assert!(load(&registry, &new, |_| true).is_empty());
    }

    #[test]
    fn changes_come_all_or_not_at_all() {
        let registry = Registry::default();
        let vm = registry.find_or_stranger("vsock:9", &Rights::default()).unwrap();
        let changes = [("weight".to_owned(), Raw::Integer(7)), ("tier".to_owned(), Raw::Text("x".into()))];
        let error = set_all(&registry, &vm, &changes.into()).unwrap_err();
        assert!(error.contains("tier: 'x' is not one of"), "{error}");
        assert_eq!(vm.limits().weight, 100);
        assert!(set(&registry, &vm, "colour", "x").unwrap_err().contains("is no limit"));
        set(&registry, &vm, "memory_max", "1M").unwrap();
        let error = set(&registry, &vm, "memory.min", "2M").unwrap_err();
        assert!(error.contains("2097152 is more than its memory_max of 1048576"), "{error}");
        assert_eq!(set(&registry, &vm, "gpus", "GPU-1A,3").unwrap(), ["gpus: all -> GPU-1a,3"]);
    }

    #[test]
    fn a_control_sockets_values_are_as_a_configuration_has_them() {
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let all = [("gpus".to_owned(), value("[1, \"GPU-2\"]")), ("memory_max".to_owned(), value("null"))];
        let raw = raw(&all.into()).unwrap();
        assert_eq!(raw["gpus"], Raw::Text("1,GPU-2".into()));
        assert_eq!(raw["memory_max"], Raw::Text("max".into()));
        assert!(super::raw(&[("gpus".to_owned(), value("[[1]]"))].into()).is_err());
    }

    #[test]
    fn vms_come_and_go() {
        let registry = Registry::default();
        load(&registry, RED, |_| false);
        let rule = |name: &str, cid| Rule {
            name: name.into(),
            identity: Identity::Cid(cid),
            rights: Rights::default(),
        };
        let create = |rule: Rule| registry.changing().create(rule);
        assert!(create(rule("red", 4)).unwrap_err().contains("already"));
        assert!(create(rule("blue", 3)).unwrap_err().contains("same cid 3"));
        create(rule("blue", 4)).unwrap();
        assert_eq!(registry.rules().len(), 2);
        assert!(registry.destroy("red").unwrap_err().contains("stands in the configuration"));
        assert!(registry.destroy("green").unwrap_err().contains("no VM"));
        // A rule that goes while the VM has sessions leaves a stranger with the default's rights.
        load(&registry, "default.policy = \"deny\"\n", |name| name == "red");
        let red = registry.find("red").unwrap();
        assert_eq!((red.origin(), may_connect(&red.rights())), (Origin::Stranger, false));
        assert_eq!(registry.find("blue").unwrap().origin(), Origin::Operator);
        registry.destroy("blue").unwrap();
        load(&registry, "", |_| false);
        assert!(registry.rules().is_empty());
    }

    #[test]
    fn a_plan_holds_every_vm_once() {
        let registry = Registry::default();
        load(&registry, RED, |_| false);
        let more = Rights { limits: Limits { memory_min: 5, ..Limits::default() }, ..Rights::default() };
        let minima = |plan: Plan| {
            plan.into_iter()
                .map(|(name, rights)| (name, rights.limits.memory_min))
                .collect::<BTreeMap<_, _>>()
        };
        let expected = |pairs: &[(&str, u64)]| {
            pairs.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(minima(registry.changing().with("red", &more)), expected(&[("red", 5)]));
        assert_eq!(minima(registry.changing().with("new", &more)), expected(&[("new", 5), ("red", 0)]));
    }
}
