//! A lab's network: one switch in a namespace of its own, one cable to each host, and ways to hurt both.
//!
//! The namespaces of hosts outlive a reboot, so a host needs no network configuration inside.

use std::net::Ipv4Addr;

use crate::command;
use crate::fault::{Doing, Result};
use crate::record::namespace_name;

/// Interface names have at most 15 bytes, and a cable's begins with `p-`.
const HOST_NAME_MAX: usize = 13;

/// Packets from a port in `mute`, to a port in `deaf`, and between ports of a pair in `apart` are dropped silently.
const RULES: &str = "
table bridge cut {
    set mute { type ifname; }
    set deaf { type ifname; }
    set apart { type ifname . ifname; }
    chain pass {
        type filter hook forward priority 0;
        iifname @mute drop
        oifname @deaf drop
        iifname . oifname @apart drop
    }
}";

/// The bandwidth of a host's cable, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// As fast as this machine is.
    Unlimited,
    /// At most this many megabits in a second.
    Megabits(u32),
}

/// The switch that a lab's hosts are plugged into.
#[derive(Debug)]
pub(crate) struct Switch {
    id: String,
    namespace: String,
}

impl Switch {
    pub(crate) fn create(id: &str) -> Result<Self> {
        let namespace = namespace_name(id, "switch");
        let switch = Self {
            id: id.to_owned(),
            namespace,
        };
        switch.set_up().doing(|| "making the lab's switch")?;
        Ok(switch)
    }

    fn set_up(&self) -> Result<()> {
        ip(&["netns", "add", &self.namespace])?;
        self.ip("link add br0 type bridge")?;
        self.ip("link set br0 up")?;
        self.nft(RULES)
    }

    /// Makes the namespace of a host and its cable; gives its address.
    pub(crate) fn plug_in(&self, host: &str, number: u8) -> Result<Ipv4Addr> {
        if host.is_empty() || host.len() > HOST_NAME_MAX || host == "switch" {
            return Err(crate::Fault::new(format!(
                "naming a host {host:?}: 1 to {HOST_NAME_MAX} bytes, and not \"switch\""
            )));
        }
        let address = Ipv4Addr::new(10, 77, 0, number);
        let theirs = namespace_name(&self.id, host);
        let inside = |words: &str| in_namespace(&theirs, words);
        ip(&["netns", "add", &theirs])?;
        self.ip(&format!(
            "link add {} type veth peer name eth0 netns {theirs}",
            port(host)
        ))?;
        self.ip(&format!("link set {} master br0 up", port(host)))?;
        inside("link set lo up")?;
        inside(&format!("addr add {address}/24 dev eth0"))?;
        inside("link set eth0 up")?;
        Ok(address)
    }

    /// Pulls a host's cable out or puts it in again; the host sees its carrier go and come.
    pub(crate) fn set_carrier(&self, host: &str, state: &str) -> Result<()> {
        self.ip(&format!("link set {} {state}", port(host)))
    }

    /// Makes a host's packets vanish, in both directions; it keeps its carrier.
    pub(crate) fn cut(&self, host: &str) -> Result<()> {
        self.nft(&format!(
            "add element bridge cut mute {{ {0} }}\nadd element bridge cut deaf {{ {0} }}",
            port(host)
        ))
    }

    /// Undoes [`Switch::cut`].
    pub(crate) fn heal(&self, host: &str) -> Result<()> {
        self.nft(&format!(
            "delete element bridge cut mute {{ {0} }}\ndelete element bridge cut deaf {{ {0} }}",
            port(host)
        ))
    }

    /// Makes packets between two hosts vanish (`add`), or pass again (`delete`).
    pub(crate) fn set_apart(&self, verb: &str, one: &str, other: &str) -> Result<()> {
        let (one, other) = (port(one), port(other));
        self.nft(&format!(
            "{verb} element bridge cut apart {{ {one} . {other}, {other} . {one} }}"
        ))
    }

    pub(crate) fn set_rate(&self, host: &str, rate: Rate) -> Result<()> {
        let theirs = namespace_name(&self.id, host);
        for (namespace, interface) in [(&self.namespace, port(host)), (&theirs, "eth0".to_owned())]
        {
            let words = match rate {
                Rate::Unlimited => {
                    format!("-n {namespace} qdisc replace dev {interface} root pfifo_fast")
                }
                Rate::Megabits(megabits) => format!(
                    "-n {namespace} qdisc replace dev {interface} root tbf rate {megabits}mbit burst 32kb latency 200ms"
                ),
            };
            let words: Vec<&str> = words.split(' ').collect();
            command::run("tc", &words)?;
        }
        Ok(())
    }

    fn ip(&self, words: &str) -> Result<()> {
        in_namespace(&self.namespace, words)
    }

    fn nft(&self, script: &str) -> Result<()> {
        ip(&["netns", "exec", &self.namespace, "nft", script])
    }
}

fn port(host: &str) -> String {
    format!("p-{host}")
}

fn in_namespace(namespace: &str, words: &str) -> Result<()> {
    let mut arguments = vec!["-n", namespace];
    arguments.extend(words.split(' '));
    ip(&arguments)
}

fn ip(arguments: &[&str]) -> Result<()> {
    command::run("ip", arguments).map(drop)
}
