//! The ways in which a program is run.

use crate::Error;
use crate::cli::Cli;
use crate::server::Server;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Name {
    /// On the host's driver, or on a software device's libcuda.
    Native,
    /// Through shim and server, with whatever the two agree on.
    Remoted,
    /// Through shim and server, over the socket alone.
    Socket,
}

/// One way of running programs.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// Which.
    pub(crate) name: Name,
    preload: Option<PathBuf>,
    variables: Vec<(&'static str, String)>,
}

impl Way {
    /// The ways that the command line asks for.
    pub(crate) fn all(cli: &Cli, server: &Server) -> Result<Vec<Self>, Error> {
        let absolute = |path: &Option<PathBuf>| {
            path.as_deref()
                .map(|path| path.canonicalize().map_err(Error::io(path.display().to_string())))
                .transpose()
        };
        let preload = absolute(&cli.remote_preload)?;
        let variables: Vec<_> =
            server.address().map(|address| ("PXOS_SERVER", address)).into_iter().collect();
        let mut ways = vec![
            Self { name: Name::Native, preload: absolute(&cli.direct_preload)?, variables: Vec::new() },
            Self { name: Name::Remoted, preload: preload.clone(), variables: variables.clone() },
        ];
        if cli.socket_only {
            let variables = variables.into_iter().chain([("PXOS_SHARED_MEMORY", "0".to_owned())]).collect();
            ways.push(Self { name: Name::Socket, preload, variables });
        }
        Ok(ways)
    }

    /// Whether a server takes part.
    pub(crate) fn is_remote(&self) -> bool {
        self.name != Name::Native
    }

    /// A command that runs `program` this way; an inherited preload is taken away in any case.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_remove("LD_PRELOAD").env_remove("PXOS_SHARED_MEMORY").stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (*name, value)));
        if let Some(library) = &self.preload {
            command.env("LD_PRELOAD", library);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_carries_its_way_and_nothing_else() {
        let way = Way {
            name: Name::Socket,
            preload: Some("/lib/x.so".into()),
            variables: vec![("PXOS_SHARED_MEMORY", "0".into())],
        };
        let command = way.command(Path::new("/bin/true"));
        let set: Vec<_> =
            command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?))).collect();
        assert_eq!(set, [("LD_PRELOAD", "/lib/x.so"), ("PXOS_SHARED_MEMORY", "0")]);
        let native = Way { name: Name::Native, preload: None, variables: Vec::new() };
        assert!(native.command(Path::new("/bin/true")).get_envs().all(|(_, value)| value.is_none()));
    }
}
