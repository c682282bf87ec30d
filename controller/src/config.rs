//! `/etc/backstay/controller.toml`: unknown keys are errors.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// Says why the configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is there but cannot be read.
    #[error("reading {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{path}: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// `public_url` is not an address that agents and browsers can use.
    #[error("public_url {0:?} must look like \"https://backup.example.net:8443\"")]
    PublicUrl(String),
}

/// What the operator decides about the controller.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen; every address of the machine by default.
    pub listen: SocketAddr,
    /// How browsers and agents reach the controller; made from the host name when absent.
    pub public_url: Option<String>,
    /// More names for the self-signed certificate.
    pub names: Vec<String>,
    /// The one directory with everything that must survive.
    pub state_dir: PathBuf,
    /// How long an agent's watch is held, in seconds; 1 to 240.
    pub watch_secs: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0_u16; 8], 8443)),
            public_url: None,
            names: Vec::new(),
            state_dir: PathBuf::from("/var/lib/backstay-controller"),
            watch_secs: protocol::WATCH_SECS_MAX,
        }
    }
}

impl Config {
    /// Where the file is when nothing else is said.
    pub const PATH: &str = "/etc/backstay/controller.toml";

    /// Reads the file; defaults when there is none.
    ///
    /// # Errors
    ///
    /// `ConfigError`: tell the operator; nothing was started.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        if let Some(url) = &config.public_url
            && host_of(url).is_none()
        {
            return Err(ConfigError::PublicUrl(url.clone()));
        }
        Ok(config)
    }

    /// Gives `name:port` as agents and browsers reach a controller that listens on `port`.
    #[must_use]
    pub fn public_host(&self, port: u16) -> String {
        let configured = self.public_url.as_deref().and_then(host_of);
        match configured {
            // Port 0 stands for whichever port is listened on.
            Some(host) => match host.strip_suffix(":0") {
                Some(name) => format!("{name}:{port}"),
                None => host,
            },
            None => format!("{}:{port}", hostname()),
        }
    }

    /// Gives the names that the certificate carries.
    #[must_use]
    pub fn certificate_names(&self) -> Vec<String> {
        let public = self.public_host(0);
        let public = public.rsplit_once(':').map_or("", |(name, _)| name);
        let mut names = self.names.clone();
        for name in [
            public.trim_matches(['[', ']']),
            &hostname(),
            "localhost",
            "127.0.0.1",
            "::1",
        ] {
            if !name.is_empty() && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }
}

/// Gives `name:port` of an `https` address without path.
fn host_of(url: &str) -> Option<String> {
    let host = url.strip_prefix("https://")?;
    let host = host.strip_suffix('/').unwrap_or(host);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    if host.is_empty() || !host.bytes().all(plain) {
        return None;
    }
    let has_port = host.rsplit_once(':').is_some_and(|(name, port)| {
        port.parse::<u16>().is_ok() && (!name.contains(':') || name.ends_with(']'))
    });
    Some(if has_port {
        host.to_owned()
    } else {
        format!("{host}:443")
    })
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_ascii_lowercase())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("controller.toml"))
    }

    #[test]
    fn unknown_keys_are_errors() {
        let error = parse("listne = \"[::]:1\"\n").unwrap_err();
        insta::assert_snapshot!(error, @r#"
        controller.toml: TOML parse error at line 1, column 1
          |
        1 | listne = "[::]:1"
          | ^^^^^^
        unknown field `listne`, expected one of `listen`, `public_url`, `names`, `state_dir`, `watch_secs`
        "#);
    }

    #[test]
    fn the_public_host_has_a_port() {
        let host = |url: &str| {
            parse(&format!("public_url = {url:?}"))
                .unwrap()
                .public_host(1)
        };
        assert_eq!(host("https://backup.example.net"), "backup.example.net:443");
        assert_eq!(
            host("https://backup.example.net:8443/"),
            "backup.example.net:8443"
        );
        assert_eq!(host("https://[::1]:8443"), "[::1]:8443");
        assert!(parse("public_url = \"http://x\"").is_err());
        assert!(parse("public_url = \"https://x/path\"").is_err());
    }
}
