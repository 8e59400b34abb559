//! The table of settings: one row is a key of the file, a flag, an environment variable and a line of the help.

use clap::{Arg, ArgAction, Command};

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name in the file, with the table that it stands in: `pool.size`.
    pub name: &'static str,
    /// What the help calls its value.
    pub value: &'static str,
    /// What holds where nobody says anything; several values apart by commas.
    pub default: &'static str,
    /// Whether SIGHUP changes it.
    pub reloads: bool,
    /// One line for the help.
    pub help: &'static str,
}

const fn key(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    reloads: bool,
    help: &'static str,
) -> Key {
    Key { name, value, default, reloads, help }
}

/// Every setting but the `[[vm]]` rules.
pub const KEYS: &[Key] = &[
    key(
        "listen",
        "ENDPOINT",
        "unix:/run/pxos-gpu.sock,vsock:any:9700",
        true,
        "Where guests connect: unix:/path, vsock:any:PORT, tcp:HOST:PORT, tls:HOST:PORT, vm:NAME=/path or serial:NAME=/path; may be repeated",
    ),
    key(
        "shared",
        "VM=PATH",
        "",
        true,
        "File of the memory that a VM shares (NAME=/dev/shm/file, or NAME:SLOTS=/path); may be repeated",
    ),
    key("socket_mode", "MODE", "0660", false, "Permissions of the unix sockets for guests, octal"),
    key("driver", "DRIVER", "auto", false, "The libcuda to use: auto, soft (this CPU) or a path"),
    key("devices", "LIST", "all", false, "Devices to use, by ordinal or UUID, apart by commas; or all"),
    key("max_sessions", "COUNT", "128", true, "Sessions at once"),
    key("max_connecting", "COUNT", "64", true, "Connections at once that have not said their hello yet"),
    key("hello_timeout", "TIME", "5s", true, "How long a guest may take to say its hello"),
    key("drain_timeout", "TIME", "10s", true, "How long sessions may go on after SIGTERM"),
    key("control", "PATH", pxos_protocol::admin::DEFAULT_CONTROL, false, "The control socket, for pxctl"),
    key("control_mode", "MODE", "0600", false, "Permissions of the control socket, octal"),
    key("pool.size", "COUNT", "1", true, "Workers that wait with the driver initialised"),
    key("pool.start_timeout", "TIME", "60s", true, "How long a worker may take to become ready"),
    key("pool.wait_timeout", "TIME", "30s", true, "How long a guest waits for a worker when none is ready"),
    key("pool.rest", "TIME", "1s", true, "How long a program runs before the next worker is made ready"),
    key("log.level", "LEVEL", "info", true, "What is logged: error, warn, info, debug or trace"),
    key("log.format", "FORMAT", "text", false, "Form of the log: text or json"),
    key(
        "log.output",
        "WHERE",
        "stderr",
        false,
        "Where the log goes: stderr, syslog or the path of a file, which SIGUSR1 and SIGHUP open anew",
    ),
    key(
        "tcp.token",
        "TOKEN",
        "",
        true,
        "Token for TCP and TLS guests that no rule names (better in the environment)",
    ),
    key("tls.certificate", "FILE", "", true, "The server's certificate for tls: endpoints, PEM"),
    key("tls.key", "FILE", "", true, "The key of that certificate, PEM"),
    key(
        "tls.client_ca",
        "FILE",
        "",
        true,
        "Authority whose certificates TLS guests must show, PEM; nothing to ask for none",
    ),
    key("tcp.anonymous", "BOOL", "false", true, "Whether TCP guests without a token are let in"),
    key(
        "charge_context",
        "BOOL",
        "false",
        true,
        "Whether the overhead of a VM's CUDA contexts counts against its memory_max",
    ),
    key(
        "guest_sensors",
        "BOOL",
        "false",
        true,
        "Whether guests see the devices' temperature, power and clocks, which tell of all VMs' work",
    ),
    key(
        "advisor.url",
        "URL",
        "",
        true,
        "An OpenAI-compatible endpoint that pxctl advise asks; nothing for none",
    ),
    key("advisor.model", "NAME", "default", true, "The model that it asks for"),
    key(
        "metrics.listen",
        "ADDRESS",
        "",
        false,
        "Where Prometheus finds metrics: HOST:PORT; nothing for nowhere",
    ),
    key(
        "scheduler.policy",
        "POLICY",
        "leasefq",
        true,
        "How devices are shared: leasefq, fifo (not at all) or rr",
    ),
    key("scheduler.quantum", "TIME", "10ms", true, "A lease of a VM of mean weight, 1ms to 20ms"),
    key(
        "scheduler.max_kernel",
        "TIME",
        "0",
        true,
        "How long a kernel may take before its process ends; 0 for ever",
    ),
    key(
        "default.policy",
        "POLICY",
        "allow",
        true,
        "Whether guests that no rule names may connect: allow or deny",
    ),
    key(
        "default.gpus",
        "LIST",
        "all",
        true,
        "Devices that it sees, by number, UUID or PCI address, apart by commas; or all",
    ),
    key("default.weight", "WEIGHT", "100", true, "Its share of a contended device, 1 to 10000"),
    key(
        "default.gpu_max",
        "CAP",
        "max",
        true,
        "Its cap on device time: \"QUOTA PERIOD\" in µs, a percentage, or max",
    ),
    key("default.tier", "TIER", "normal", true, "Whom it goes before: latency, normal or idle"),
    key(
        "default.class",
        "CLASS",
        "auto",
        true,
        "Its kind of work: realtime, interactive, throughput, batch, or auto to find out",
    ),
    key("default.memory_max", "SIZE", "max", true, "Device memory that it may hold"),
    key("default.max_processes", "COUNT", "max", true, "Guest processes of it with a session at once"),
    key("default.max_streams", "COUNT", "max", true, "Streams of it at once"),
    key(
        "default.unchecked",
        "POLICY",
        "deny",
        true,
        "Whether its primitives may leave bounds checks out: allow or deny",
    ),
    key(
        "default.latency_critical",
        "POLICY",
        "deny",
        true,
        "Whether its primitives marked LATENCY_CRITICAL go with the latency tier: allow or deny",
    ),
];

/// A limit of a VM: a key of its rule, and mostly of `[default]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitKey {
    /// In a rule, and for `pxctl vm set`.
    pub name: &'static str,
    /// In [`KEYS`]; `None` for what a VM has by name only.
    pub in_default: Option<&'static str>,
}

const fn limit(name: &'static str, in_default: &'static str) -> LimitKey {
    LimitKey { name, in_default: Some(in_default) }
}

/// Every limit of a VM.
pub const LIMITS: &[LimitKey] = &[
    limit("weight", "default.weight"),
    limit("gpu_max", "default.gpu_max"),
    limit("tier", "default.tier"),
    limit("class", "default.class"),
    limit("memory_max", "default.memory_max"),
    // A promise to whoever may come can be kept to nobody.
    LimitKey { name: "memory_min", in_default: None },
    limit("max_processes", "default.max_processes"),
    limit("max_streams", "default.max_streams"),
    limit("unchecked", "default.unchecked"),
    limit("latency_critical", "default.latency_critical"),
];

/// Keys of a `[[vm]]` rule: who it is, and its [`LIMITS`].
pub const VM_KEYS: &[&str] = &[
    "name",
    "cid",
    "socket",
    "token",
    "certificate",
    "policy",
    "gpus",
    "weight",
    "gpu_max",
    "tier",
    "class",
    "memory_max",
    "memory_min",
    "max_processes",
    "max_streams",
    "unchecked",
    "latency_critical",
];

impl Key {
    /// The flag without its dashes: `pool-size`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// The environment variable: `PXOS_POOL_SIZE`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("PXOS_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// Whether it takes several values.
    #[must_use]
    pub fn is_list(&self) -> bool {
        ["listen", "shared"].contains(&self.name)
    }
}

/// The command line of the daemon, without the worker mode.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new("pxos-server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Shares this host's GPU with the CUDA programs of its VMs")
        .after_help(
            "Each setting may also stand in the file, as 'name = value', or in the environment, as PXOS_NAME; \
             a flag wins over the environment, and that over the file. SIGHUP reads all again, SIGUSR1 opens the log's \
             file anew, SIGTERM ends.",
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help(format!("Configuration file [default: {}]", pxos_protocol::admin::DEFAULT_CONFIG)),
        )
        .arg(
            Arg::new("check-config")
                .long("check-config")
                .action(ArgAction::SetTrue)
                .help("Only says whether the configuration is good"),
        )
        .arg(
            Arg::new("daemonize")
                .long("daemonize")
                .action(ArgAction::SetTrue)
                .help("Goes into the background; returns once guests are let in, or with what went wrong"),
        )
        .arg(
            Arg::new("pidfile")
                .long("pidfile")
                .value_name("FILE")
                .help("Writes the process id to this file, which is removed at the end"),
        )
        .arg(Arg::new("worker-program").long("worker-program").value_name("FILE").hide(true));
    for key in KEYS {
        let default = if key.default.is_empty() { "none" } else { key.default };
        command = command.arg(
            Arg::new(key.name)
                .long(&*key.flag().leak()) // clap wants names that live for ever; there are few
                .value_name(key.value)
                .action(if key.is_list() { ArgAction::Append } else { ArgAction::Set })
                .help(format!("{} [env: {}] [default: {default}]", key.help, key.variable())),
        );
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
        assert_eq!(KEYS[11].flag(), "pool-size");
        assert_eq!(KEYS[11].variable(), "PXOS_POOL_SIZE");
    }

    #[test]
    fn every_limit_is_a_key_of_rules_and_of_the_default() {
        for limit in LIMITS {
            assert!(VM_KEYS.contains(&limit.name), "{}", limit.name);
            let Some(in_default) = limit.in_default else { continue };
            assert_eq!(in_default, format!("default.{}", limit.name));
            assert!(KEYS.iter().any(|key| key.name == in_default), "{in_default}");
        }
    }

    #[test]
    fn every_setting_is_in_the_manual_and_in_the_example() {
        let manual = include_str!("../../../docs/configuration.md");
        let example = include_str!("../../../packaging/server.toml");
        for key in KEYS {
            assert!(
                manual.contains(&format!("`{}`", key.name)),
                "{} is not in docs/configuration.md",
                key.name
            );
            assert!(manual.contains(&format!("`{}`", key.variable())), "{} is not in docs", key.variable());
            let name = key.name.rsplit('.').next().unwrap();
            assert!(example.contains(&format!("{name} = ")), "{} is not in packaging/server.toml", key.name);
        }
        for key in VM_KEYS {
            assert!(manual.contains(&format!("`{key}`")), "vm {key} is not in docs/configuration.md");
            assert!(example.contains(&format!("{key} = ")), "vm {key} is not in packaging/server.toml");
        }
    }
}
