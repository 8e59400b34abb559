//! Tests of the configuration as a whole.

use super::*;
use crate::vm::{Class, Tier};
use std::io::Write;

fn sources(file: &str) -> (Sources, tempfile::NamedTempFile) {
    let mut written = tempfile::NamedTempFile::new().unwrap();
    written.write_all(file.as_bytes()).unwrap();
    let sources = Sources { file: written.path().to_owned(), file_is_named: true, ..Sources::default() };
    (sources, written)
}

fn load(file: &str) -> Result<Config, Vec<String>> {
    let (sources, _written) = sources(file);
    let prefix = format!("{}:", sources.file.display());
    Config::load(&sources).map_err(|problems| {
        problems.0.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
    })
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let config = load("").unwrap();
    assert!(config.listen_is_default);
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.driver, DriverChoice::Auto);
    assert_eq!(config.pool.size, 1);
    assert_eq!(config.default.policy, Policy::Allow);
}

#[test]
fn all_mistakes_are_told_together_and_where() {
    let errors = load(
        "listen = [\"unix:/a.sock\", \"http://x\", \"tcp:0.0.0.0:1\"]\n\
         drvier = \"auto\"\n\
         hello_timeout = \"soon\"\n\
         [pool]\n\
         size = -1\n\
         sise = 2\n\
         [[vm]]\n\
         name = \"red\"\n\
         cid = 2\n\
         [[vm]]\n\
         name = \"blue\"\n\
         cid = 4\n\
         token = \"0123456789abcdef\"\n",
    )
    .unwrap_err();
    for wanted in [
        "1:27: listen: 'http://x' is no endpoint",
        "2:1: 'drvier' is no setting; 'driver' perhaps?",
        "3:17: hello_timeout: 'soon' is not a time",
        "5:8: pool.size: -1 is not a whole number",
        "6:1: 'pool.sise' is no setting; 'pool.size' perhaps?",
        "9:7: vm: cid: 2 is not the context id of a guest",
        "10:1: vm: a rule needs exactly one of cid, socket, token",
        "tcp:0.0.0.0:1 is not a loopback address",
        "tcp:0.0.0.0:1 needs a token",
    ] {
        assert!(errors.iter().any(|error| error.contains(wanted)), "no '{wanted}' in {errors:#?}");
    }
    assert_eq!(errors.len(), 9, "{errors:#?}");
}

#[test]
fn mistakes_of_syntax_and_of_meaning_come_together() {
    let errors = load("pool = 3\nlisten = [\nmax_sessions = 0\n").unwrap_err();
    assert!(errors.len() >= 2, "{errors:#?}");
    let errors = load("max_sessions = 0\nmax_sessions = 3\n").unwrap_err();
    assert!(errors.iter().any(|error| error.contains("duplicate")), "{errors:#?}");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let (mut sources, _written) = sources("max_sessions = 1\nhello_timeout = \"1s\"\n[pool]\nsize = 1\n");
    sources.environment.insert("max_sessions", "2".into());
    sources.environment.insert("hello_timeout", "2s".into());
    sources.environment.insert("listen", "unix:/a, unix:/b".into());
    sources.flags.insert("max_sessions", vec!["3".into()]);
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.max_sessions, config.hello_timeout.as_secs(), config.pool.size), (3, 2, 1));
    assert_eq!(config.listen.len(), 2);
    sources.environment.insert("max_sessions", "many".into());
    assert!(Config::load(&sources).is_ok(), "a value that is overridden does not count");
    sources.flags.insert("max_sessions", vec!["lots".into()]);
    sources.environment.insert("pool.size", "some".into());
    let text = Config::load(&sources).unwrap_err().to_string();
    assert!(text.contains("--max-sessions: max_sessions: 'lots'"), "{text}");
    assert!(text.contains("PXOS_POOL_SIZE: pool.size: 'some'"), "{text}");
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let mut sources =
        Sources { file: "/nonexistent/server.toml".into(), file_is_named: true, ..Sources::default() };
    assert!(Config::load(&sources).is_err());
    sources.file_is_named = false;
    assert!(Config::load(&sources).is_ok());
}

#[test]
fn rules_name_their_vms() {
    let config = load(
        "listen = [\"unix:/run/a.sock\"]\n[default]\npolicy = \"deny\"\nmemory_max = \"1G\"\n\
         [[vm]]\nname = \"red\"\ncid = 3\n[[vm]]\nname = \"blue\"\nsocket = \"/run/blue.sock\"\npolicy = \"deny\"\nmemory_max = \"max\"\n",
    )
    .unwrap();
    let rights = |policy, memory_max| Rights {
        policy,
        limits: Limits { memory_max, ..Limits::default() },
        ..Rights::default()
    };
    assert_eq!(config.vms[0].rights, rights(Policy::Allow, Some(1 << 30)));
    assert_eq!(config.vms[1].rights, rights(Policy::Deny, None));
    assert!(config.listen.contains(&Endpoint::Unix("/run/blue.sock".into())), "{:?}", config.listen);
    let errors = load(
        "[[vm]]\nname = \"red\"\ncid = 3\n[[vm]]\nname = \"red\"\ncid = 4\n[[vm]]\nname = \"blue\"\ncid = 3\n",
    )
    .unwrap_err();
    assert!(errors[0].contains("4:1: vm: 'red' has the same name as the rule 'red'"), "{errors:#?}");
    assert!(errors[1].contains("7:1: vm: 'blue' has the same identity as the rule 'red'"), "{errors:#?}");
}

#[test]
fn tcp_is_for_loopback_with_a_token() {
    assert!(load("listen = \"tcp:127.0.0.1:9700\"").is_err());
    assert!(load("listen = \"tcp:127.0.0.1:9700\"\ntcp.token = \"0123456789abcdef\"").is_ok());
    assert!(load("listen = \"tcp:[::1]:9700\"\n[tcp]\nanonymous = true").is_ok());
    assert!(load("listen = \"tcp:10.0.0.1:9700\"\n[tcp]\nanonymous = true").is_err());
}

#[test]
fn tls_needs_its_files_and_something_that_guests_show() {
    let load = |more: &str| load(&format!("listen = \"tls:10.0.0.1:9701\"\n[tls]\n{more}"));
    let files = "certificate = \"/host.pem\"\nkey = \"/host.key\"\n";
    assert!(load("client_ca = \"/ca.pem\"").unwrap_err()[0].contains("needs tls.certificate and tls.key"));
    assert!(load(files).unwrap_err()[0].contains("needs a token"));
    assert!(load(&format!("{files}client_ca = \"/ca.pem\"")).is_ok());
    assert!(load(&format!("{files}[tcp]\ntoken = \"0123456789abcdef\"")).is_ok());
    assert!(load(&format!("{files}[[vm]]\nname = \"red\"\ncertificate = \"red vm\"")).is_err());
}

#[test]
fn a_reload_says_what_changed_and_keeps_secrets() {
    let old = load("[tcp]\ntoken = \"old-0123456789abcdef\"\n[[vm]]\nname = \"red\"\ncid = 3\n").unwrap();
    let new = load(
        "driver = \"soft\"\n[pool]\nsize = 2\n[tcp]\ntoken = \"new-0123456789abcdef\"\n[[vm]]\nname = \"blue\"\ncid = 3\n",
    )
    .unwrap();
    let (changed, restart) = old.differences(&new);
    assert_eq!(restart, ["driver: auto -> soft"]);
    assert!(changed.contains(&"pool.size: 1 -> 2".to_owned()), "{changed:?}");
    assert!(changed.contains(&"tcp.token: set -> set".to_owned()), "{changed:?}");
    assert!(changed.iter().any(|line| line.starts_with("vm red: cid 3") && line.ends_with("nothing")));
    assert!(!format!("{changed:?}").contains("0123456789abcdef"));
    assert_eq!(old.differences(&old), (vec![], vec![]));
}

#[test]
fn the_packaged_example_is_a_good_configuration_and_says_the_defaults() {
    let example = load(include_str!("../../../packaging/server.toml")).unwrap();
    let bare = load("").unwrap();
    let (changed, restart) = bare.differences(&example);
    assert!(changed.is_empty() && restart.is_empty(), "{changed:?} {restart:?}");
    // With every comment sign before a setting taken away, it is still good.
    let all: String = include_str!("../../../packaging/server.toml")
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let all = load(&all).unwrap();
    assert_eq!(all.vms.len(), 4);
}

#[test]
fn limits_are_read_and_their_mistakes_told_together() {
    let config = load(
        "[default]\nweight = 50\nmax_processes = 8\n[[vm]]\nname = \"red\"\ncid = 3\nweight = 300\n\
         gpu_max = \"25%\"\ntier = \"latency\"\nclass = \"realtime\"\nmemory_max = \"8G\"\nmax_streams = 64\n\
         unchecked = \"allow\"\n",
    )
    .unwrap();
    assert_eq!(config.default.limits.weight, 50);
    let red = &config.vms[0].rights;
    assert_eq!(
        red.limits,
        Limits {
            weight: 300,
            gpu_max: "25000 100000".parse().unwrap(),
            tier: Tier::Latency,
            class: Some(Class::Realtime),
            memory_min: 0,
            memory_max: Some(8 << 30),
            max_processes: Some(8),
            max_streams: Some(64),
            unchecked: true,
            latency_critical: false,
        }
    );
    let errors = load(
        "[default]\nweight = 0\ntier = \"fast\"\n[[vm]]\nname = \"red\"\ncid = 3\nweight = 10001\ngpu_max = \"200%\"\n\
         class = \"game\"\nmemory_max = \"1G\"\nmax_processes = 0\nunchecked = true\n",
    )
    .unwrap_err();
    for wanted in [
        "2:10: default.weight: 0 is not a weight from 1 to 10000",
        "3:8: default.tier: 'fast' is not one of latency, normal, idle",
        "7:10: vm: weight: 10001 is not a weight",
        "8:11: vm: gpu_max: 200 % is not more than 0 % and at most 100 %",
        "9:9: vm: class: 'game' is not one of auto, realtime, interactive, throughput, batch",
        "11:17: vm: max_processes: 0 is less than 1",
        "12:13: vm: unchecked: true is not",
    ] {
        assert!(errors.iter().any(|error| error.contains(wanted)), "no '{wanted}' in {errors:#?}");
    }
    assert_eq!(errors.len(), 7, "{errors:#?}");
}
