//! Hosts, each in a namespace of its own, with one cable each to the router.
//!
//! Host number n is at 10.0.n.2, and the router's end of its cable at 10.0.n.1. Published, others reach it at
//! 203.0.113.n; they see it at 198.18.n.1, or later ones of 198.18.n. Every test has a network of its own, so all of
//! them use these addresses at once.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::link::{Counts, Quality, Way};
use super::namespace::Namespace;
use super::router::{HostNumber, Router};
use super::until;

/// See the head of this file.
pub(crate) struct Network {
    router: Router,
    hosts: AtomicU8,
}

impl Network {
    /// A network without hosts. `None`, with the reason on standard error, where the system does not let a test have
    /// one: then there is nothing to test.
    pub(crate) fn new() -> Option<Self> {
        match Self::try_new() {
            Ok(network) => Some(network),
            Err(reason) => {
                let test = std::thread::current().name().unwrap_or_default().to_owned();
                // Not by a macro: this is to be read also where the output of tests that pass is not shown.
                writeln!(std::io::stderr(), "{test} is SKIPPED, no network namespaces here: {reason}").ok();
                None
            }
        }
    }

    fn try_new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can make them".to_owned());
        }
        let namespace = Namespace::new()?;
        for block in ["198.18.0.0/16", "203.0.113.0/24"] {
            namespace.ip(&format!("route add local {block} dev lo"))?;
        }
        // Whether cables can be made as well is better known now than at the first host.
        namespace.ip("link add probe type veth peer name probed")?;
        namespace.ip("link del probe")?;
        let seed = std::env::var("NET_SEED").map_or(1, |seed| seed.parse().unwrap());
        Ok(Self { router: Router::new(namespace, seed), hosts: AtomicU8::new(0) })
    }

    /// One host more.
    pub(crate) fn host(&self) -> Host {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        let (namespace, router) = (Namespace::new().unwrap(), self.router.namespace());
        let cable = format!("link add eth0 type veth peer name host{number} netns {}", router.path());
        for command in [&cable, "link set eth0 up"] {
            namespace.ip(command).unwrap();
        }
        router.ip(&format!("addr add 10.0.{number}.1/24 dev host{number}")).unwrap();
        router.ip(&format!("link set host{number} up")).unwrap();
        let host = Host { number, namespace, place: Mutex::new(1) };
        host.move_on();
        host
    }

    /// Lets others reach this port of a host. Where they do.
    pub(crate) fn publish(&self, host: &Host, port: u16) -> SocketAddr {
        let door = SocketAddr::from((Ipv4Addr::new(203, 0, 113, host.number), port));
        self.router.publish(door, SocketAddr::from((host.address(), port)));
        door
    }

    /// What the link of a host does from now on, either way.
    pub(crate) fn set(&self, host: &Host, quality: Quality) {
        self.set_one_way(host, Way::Up, quality);
        self.set_one_way(host, Way::Down, quality);
    }

    /// What it does one way.
    pub(crate) fn set_one_way(&self, host: &Host, way: Way, quality: Quality) {
        self.router.set(host.number, way, quality);
    }

    /// What happens to all that one host sends to another from now on, and to nothing else of theirs.
    pub(crate) fn set_between(&self, from: &Host, to: &Host, quality: Quality) {
        self.router.set_between(from.number, to.number, quality);
    }

    /// Others see a host at another port from now on.
    pub(crate) fn change_port(&self, host: &Host) {
        self.router.translate_anew(host.number, false);
    }

    /// Others see a host at another address from now on.
    pub(crate) fn change_address(&self, host: &Host) {
        self.router.translate_anew(host.number, true);
    }

    /// Waits until nobody has said anything for so long.
    pub(crate) async fn silence(&self, length: Duration) {
        let (mut heard, mut since) = (self.counts(), Instant::now());
        let silent = || {
            let now = self.counts();
            if now != heard {
                (heard, since) = (now, Instant::now());
            }
            since.elapsed() >= length
        };
        until("silence", silent).await;
    }

    /// What became of the datagrams so far.
    pub(crate) fn counts(&self) -> Counts {
        self.router.counts()
    }
}

/// A machine of its own, as far as programs in it can see.
pub(crate) struct Host {
    number: HostNumber,
    pub(crate) namespace: Namespace,
    /// The last number of its address.
    place: Mutex<u8>,
}

impl Host {
    /// Its own address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.number, *self.place.lock().unwrap())
    }

    /// It gets another address of its own, and loses the one that it had.
    pub(crate) fn move_on(&self) {
        let mut place = self.place.lock().unwrap();
        *place += 1;
        let (number, place) = (self.number, *place);
        self.namespace.ip("addr flush dev eth0").unwrap();
        self.namespace.ip(&format!("addr add 10.0.{number}.{place}/24 dev eth0")).unwrap();
        self.namespace.ip(&format!("route add default via 10.0.{number}.1")).unwrap();
    }
}
