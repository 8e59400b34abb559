//! `pxctl advise`: what to change about VMs, from what the server measured.
//!
//! The rules here need nobody else. Where the server's configuration names an advisor (`advisor.url`), the same report
//! goes to that OpenAI-compatible endpoint as well; what comes back is a proposal by a stranger: only limits can be in
//! it, the server checks every value, and nothing is changed unless the operator says `--apply`.

use crate::units::{bytes, wrap};
use crate::{Failure, json};
use pxos_client::Control;
use pxos_protocol::admin::{Request, Status, Vm};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json as object};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How long an advisor may think.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest answer that is read.
const LONGEST: u64 = 1 << 20;
/// What an advisor may propose to change; who may connect, and to which devices, is the operator's alone.
const MAY_SET: &[&str] =
    &["weight", "gpu_max", "tier", "class", "memory_max", "max_processes", "max_streams"];

/// How to advise.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Changes what is proposed, after the server has checked it
    #[arg(long)]
    apply: bool,
    /// Seconds to measure over
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    measure: f64,
}

/// One piece of advice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Advice {
    /// The VM.
    vm: String,
    /// Why, and what the program itself could do.
    why: String,
    /// Limits to change; may be none.
    #[serde(default)]
    set: BTreeMap<String, Value>,
    /// Whose advice it is.
    #[serde(default)]
    by: String,
    /// Why it cannot be followed, where that is so.
    #[serde(default)]
    refused: Option<String>,
}

/// Advises.
pub(crate) fn run(path: &Path, args: &Args) -> Result<(), Failure> {
    let mut control = Control::connect(path)?;
    let status = control.status()?;
    control.vms()?;
    std::thread::sleep(Duration::from_secs_f64(args.measure.clamp(0.3, 60.0)));
    let vms = control.vms()?;
    let total = status.devices.iter().map(|device| device.total_memory).sum();
    let mut all = rules(&vms, total);
    if !status.server.advisor.0.is_empty() {
        let key = std::env::var("PXOS_ADVISOR_KEY").ok();
        all.extend(ask(&status, &vms, &all, key.as_deref()).map_err(Failure::Other)?);
    }
    for advice in all.iter_mut().filter(|advice| !advice.set.is_empty()) {
        advice.refused = check(&mut control, advice).err();
    }
    let mut done = Vec::new();
    for advice in all.iter().filter(|advice| args.apply && !advice.set.is_empty() && advice.refused.is_none())
    {
        let set = advice.set.clone();
        done.push(control.act(&Request::VmSet { name: advice.vm.clone(), set, check: false })?);
    }
    if args.json {
        json(&object!({ "vms": vms, "advice": all, "applied": done }));
    } else {
        print!("{}", text(&all));
        done.iter().for_each(|line| println!("applied: {line}"));
    }
    Ok(())
}

/// Whether the advice is within what advice may be, and its values are good.
fn check(control: &mut Control, advice: &Advice) -> Result<(), String> {
    if let Some(key) = advice.set.keys().find(|key| !MAY_SET.contains(&key.replace('.', "_").as_str())) {
        return Err(format!("{key} is for the operator alone"));
    }
    let request = Request::VmSet { name: advice.vm.clone(), set: advice.set.clone(), check: true };
    control.act(&request).map(drop).map_err(|error| error.to_string())
}

fn text(all: &[Advice]) -> String {
    if all.is_empty() {
        return "nothing to change, as far as was measured\n".to_owned();
    }
    let mut out = String::new();
    for advice in all {
        let mut line = format!("{} ({}): {}", advice.vm, advice.by, advice.why);
        let pairs: Vec<String> = advice.set.iter().map(|(key, value)| pair(key, value)).collect();
        if let Some(refused) = &advice.refused {
            line += &format!(" — refused: {refused}");
        }
        out += &(wrap(&line, 78).join("\n  ") + "\n");
        if !pairs.is_empty() && advice.refused.is_none() {
            out += &format!("    pxctl vm set {} {}\n", advice.vm, pairs.join(" "));
        }
    }
    out
}

fn pair(key: &str, value: &Value) -> String {
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if value.contains(' ') { format!("'{key}={value}'") } else { format!("{key}={value}") }
}

/// What the measurements say by themselves.
fn rules(vms: &[Vm], device_memory: u64) -> Vec<Advice> {
    let mut all = Vec::new();
    let has_waiting = vms.iter().any(|vm| matches!(vm.class.as_str(), "realtime" | "interactive"));
    for vm in vms {
        let mut say = |why: String, set: &[(&str, Value)]| {
            let set = set.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
            all.push(Advice { vm: vm.name.clone(), why, set, by: "rules".into(), refused: None });
        };
        memory(vm, device_memory, &mut say);
        time(vm, has_waiting, &mut say);
        program(vm, &mut say);
    }
    all
}

type Say<'a> = dyn FnMut(String, &[(&str, Value)]) + 'a;

fn memory(vm: &Vm, device_memory: u64, say: &mut Say<'_>) {
    let Some(limit) = vm.limits.memory_max else { return };
    let charged = vm.memory.charged;
    if let Some(most) = vm.limits.max_streams.filter(|most| vm.refusals > 0 && vm.streams >= u64::from(*most))
    {
        let why = format!("all {most} streams are in use and more were asked for");
        say(why, &[("max_streams", Value::from(most.saturating_mul(2)))]);
    } else if vm.refusals > 0 {
        let more = limit.saturating_add(limit / 2).min(device_memory.max(limit));
        let why = format!(
            "{} allocations were refused; {} of {} are held",
            vm.refusals,
            bytes(charged),
            bytes(limit)
        );
        say(why, &[("memory_max", Value::from(more))]);
    } else if vm.sessions > 0 && charged < limit / 4 {
        // Not below what it is promised, which is refused.
        let less = charged.saturating_mul(2).max(64 << 20).max(vm.limits.memory_min);
        if less < limit {
            let why = format!("it holds {} of {}: others could have the rest", bytes(charged), bytes(limit));
            say(why, &[("memory_max", Value::from(less))]);
        }
    }
}

fn time(vm: &Vm, has_waiting: bool, say: &mut Say<'_>) {
    let usage = &vm.usage;
    let is_normal = vm.limits.tier == "normal" && vm.limits.class == "auto";
    if is_normal && vm.class == "realtime" && usage.wait_nanos > 0 {
        let why =
            format!("{}; it has waited {} ms for its turns", vm.class_reason, usage.wait_nanos / 1_000_000);
        say(why, &[("class", Value::from("realtime"))]);
    }
    if is_normal && vm.class == "batch" && has_waiting {
        say(
            format!("{}, beside a VM that somebody waits for", vm.class_reason),
            &[("class", Value::from("batch"))],
        );
    }
    let cap = cap_of(&vm.limits.gpu_max);
    if let Some(cap) = cap.filter(|cap| usage.waiting && usage.share > cap * 0.9) {
        let more = (cap * 150.0).min(100.0).round();
        let why =
            format!("it uses {:.0} % of the device, all that gpu.max allows, and waits", usage.share * 100.0);
        say(why, &[("gpu_max", Value::from(format!("{more}%")))]);
    }
}

/// What the program could do; no limit helps.
fn program(vm: &Vm, say: &mut Say<'_>) {
    let usage = &vm.usage;
    if usage.launch_rate > 20_000.0 {
        let why = format!(
            "{:.0} launches a second: larger batches or a CUDA graph would cost less for each",
            usage.launch_rate
        );
        say(why, &[]);
    }
    if usage.copy_rate > 2e9 && usage.share < 0.2 {
        let why = format!(
            "it copies {:.1} GB a second and computes little: page-locked memory, or copies in a stream of their own, \
             would overlap the two",
            usage.copy_rate / 1e9
        );
        say(why, &[]);
    }
}

/// The cap as a fraction; `None` where there is none.
fn cap_of(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: f64 = words.next()?.parse().ok()?;
    let period: f64 = words.next()?.parse().ok()?;
    Some(quota / period)
}

const TASK: &str = "You advise the operator of a server that shares GPUs among VMs. The report has, for each VM, its limits \
and what was measured. Answer with a JSON object {\"advice\": [{\"vm\": name, \"why\": one sentence with the numbers, \
\"set\": {limit: value}}]}. Limits: weight (1 to 10000), gpu_max (\"max\", a percentage, or \"quota period\" in \
microseconds), tier (latency, normal, idle), class (realtime, interactive, throughput, batch, auto), memory_max \
(bytes), max_processes, max_streams. Propose only what the measurements support; an empty list is a good answer.";

/// Asks the advisor with the report.
fn ask(status: &Status, vms: &[Vm], rules: &[Advice], key: Option<&str>) -> Result<Vec<Advice>, String> {
    let (url, model) = &status.server.advisor;
    let report = object!({ "devices": status.devices, "vms": vms, "rules": rules });
    let body = object!({
        "model": model,
        "messages": [
            { "role": "system", "content": TASK },
            { "role": "user", "content": report.to_string() },
        ],
        "response_format": { "type": "json_object" },
    });
    let failed = |error: &dyn std::fmt::Display| format!("the advisor at {url} gives no advice: {error}");
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let mut request = agent
        .post(format!("{}/chat/completions", url.trim_end_matches('/')))
        .header("Content-Type", "application/json");
    if let Some(key) = key {
        request = request.header("Authorization", format!("Bearer {key}"));
    }
    let mut answer = request.send(body.to_string()).map_err(|error| failed(&error))?;
    let text =
        answer.body_mut().with_config().limit(LONGEST).read_to_string().map_err(|error| failed(&error))?;
    proposal(&text).map_err(|error| failed(&error))
}

/// The advice in an answer of the chat interface.
fn proposal(text: &str) -> Result<Vec<Advice>, String> {
    #[derive(Deserialize)]
    struct Proposal {
        advice: Vec<Advice>,
    }
    let answer: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let content = answer.pointer("/choices/0/message/content").and_then(Value::as_str);
    let content = content.ok_or("its answer has no choices[0].message.content")?;
    let proposal: Proposal =
        serde_json::from_str(content).map_err(|error| format!("what it says is no advice: {error}"))?;
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(500).collect();
    Ok(proposal
        .advice
        .into_iter()
        .take(64)
        .map(|advice| Advice {
            vm: clean(&advice.vm),
            why: clean(&advice.why),
            by: "advisor".into(),
            refused: None,
            ..advice
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::admin::{Limits, Memory, Usage};

    fn vm(name: &str, class: &str) -> Vm {
        Vm {
            name: name.into(),
            sessions: 1,
            class: class.into(),
            class_reason: "measured".into(),
            limits: Limits {
                tier: "normal".into(),
                class: "auto".into(),
                gpu_max: "max 100000".into(),
                ..Limits::default()
            },
            ..Vm::default()
        }
    }

    #[test]
    fn measurements_lead_to_advice() {
        let hungry = Vm {
            refusals: 3,
            limits: Limits { memory_max: Some(1 << 30), ..vm("", "").limits },
            memory: Memory { charged: 1 << 30, ..Memory::default() },
            ..vm("hungry", "interactive")
        };
        let capped = Vm {
            limits: Limits { gpu_max: "25000 100000".into(), ..vm("", "").limits },
            usage: Usage { share: 0.25, waiting: true, ..Usage::default() },
            ..vm("capped", "throughput")
        };
        let busy =
            Vm { usage: Usage { launch_rate: 50_000.0, ..Usage::default() }, ..vm("busy", "throughput") };
        let all = rules(&[hungry, capped, busy, vm("batch", "batch")], 8 << 30);
        let set =
            |vm: &str| all.iter().find(|advice| advice.vm == vm).map(|advice| advice.set.clone()).unwrap();
        let idle = |memory_min| Vm {
            sessions: 1,
            limits: Limits { memory_max: Some(1 << 30), memory_min, ..vm("", "").limits },
            memory: Memory { charged: 1 << 20, ..Memory::default() },
            ..vm("idle", "interactive")
        };
        for (promised, less) in [(0, 64 << 20), (512 << 20, 512_u64 << 20)] {
            let advice = rules(&[idle(promised)], 8 << 30);
            assert_eq!(advice[0].set, [("memory_max".to_owned(), Value::from(less))].into());
        }
        assert!(rules(&[idle(1 << 30)], 8 << 30).is_empty(), "all of it is promised");
        assert_eq!(set("hungry"), [("memory_max".to_owned(), Value::from(3_u64 << 29))].into());
        assert_eq!(set("capped"), [("gpu_max".to_owned(), Value::from("38%"))].into());
        assert_eq!(set("busy"), BTreeMap::new());
        assert_eq!(set("batch"), [("class".to_owned(), Value::from("batch"))].into());
        assert!(text(&all).contains("pxctl vm set capped gpu_max=38%"), "{}", text(&all));
        assert!(rules(&[vm("quiet", "unknown")], 8 << 30).is_empty());
    }

    #[test]
    fn an_answer_is_read_or_told() {
        let answer =
            |content: &str| object!({ "choices": [{ "message": { "content": content } }] }).to_string();
        let good =
            proposal(&answer("{\"advice\":[{\"vm\":\"red\",\"why\":\"a\\u001bb\",\"set\":{\"weight\":7}}]}"))
                .unwrap();
        assert_eq!((good[0].why.as_str(), good[0].by.as_str()), ("ab", "advisor"));
        assert!(proposal(&answer("buy a larger GPU")).unwrap_err().contains("no advice"));
        assert!(proposal("{}").is_err() && proposal("<html>").is_err());
    }
}
