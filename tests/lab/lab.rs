//! A lab: hosts on one network, removed when the lab is dropped or its process dies.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::builder::HostBuilder;
use crate::fault::{Doing, Fault, Result};
use crate::host::Host;
use crate::machine;
use crate::network::Switch;
use crate::record::{self, Record};

/// The number of the first host on the network.
const FIRST_HOST: u8 = 10;

/// Hosts and their network. Everything is removed when the lab and all its hosts are dropped.
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
}

/// What a lab's hosts have in common. The fields are dropped in this order: processes and namespaces go with the record.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) switch: Switch,
    pub(crate) record: Record,
    hosts: Mutex<Vec<(String, Ipv4Addr)>>,
}

impl Lab {
    /// Makes a lab without hosts. Removes first what labs of dead processes left.
    ///
    /// # Errors
    ///
    /// When this machine lacks something; the error lists it all.
    pub fn new() -> Result<Self> {
        let missing = machine::missing();
        if !missing.is_empty() {
            return Err(Fault::new(format!(
                "making a lab: this machine lacks\n  {}",
                missing.join("\n  ")
            )));
        }
        record::reap_dead()?;
        let record = Record::create()?;
        let shared = Shared {
            switch: Switch::create(record.id())?,
            record,
            hosts: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Gives the lab's short name.
    #[must_use]
    pub fn id(&self) -> &str {
        self.shared.record.id()
    }

    /// Begins a new host.
    pub fn host(&self, name: &str) -> HostBuilder {
        HostBuilder::new(self.shared.clone(), name)
    }

    /// Boots several hosts at once.
    ///
    /// # Errors
    ///
    /// When one of them does not come up.
    pub fn up_all(&self, hosts: &[&Host]) -> Result<()> {
        for host in hosts {
            host.start()?;
        }
        hosts.iter().try_for_each(|host| host.wait_up())
    }

    /// Lets everything between two hosts vanish, while both still reach the others.
    ///
    /// # Errors
    ///
    /// When the network refuses.
    pub fn part(&self, one: &Host, other: &Host) -> Result<()> {
        let switch = &self.shared.switch;
        switch.set_apart("add", one.name(), other.name())
    }

    /// Undoes [`Lab::part`].
    ///
    /// # Errors
    ///
    /// When the two were not parted.
    pub fn rejoin(&self, one: &Host, other: &Host) -> Result<()> {
        let switch = &self.shared.switch;
        switch.set_apart("delete", one.name(), other.name())
    }
}

impl Shared {
    /// Plugs a new host in; gives its address and tells the hosts that exist.
    pub(crate) fn add(&self, name: &str) -> Result<Ipv4Addr> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.iter().any(|(taken, _)| taken == name) {
            return Err(Fault::new(format!("making the host {name}: it exists")));
        }
        let number = u8::try_from(hosts.len())
            .ok()
            .and_then(|count| FIRST_HOST.checked_add(count))
            .doing(|| "numbering a host: too many")?;
        let address = self.switch.plug_in(name, number)?;
        hosts.push((name.to_owned(), address));
        // Written in place: running hosts have this very file mounted.
        fs::write(self.record.names_file(), names(&hosts)).doing(|| format!("naming {name}"))?;
        Ok(address)
    }
}

fn names(hosts: &[(String, Ipv4Addr)]) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (name, address) in hosts {
        text.push_str(&format!("{address} {name}\n"));
    }
    text
}
