//! The kernel's part of the sieve: while an address floods a relay, its first packets of handshakes end in the kernel, in
//! the time of whoever sends them. They wake nobody here, and take no room in the socket's buffer from the others.
//!
//! A program in classic BPF that the socket runs over each packet (Linux, SO_ATTACH_FILTER). Elsewhere there is none, and
//! `sieve` leaves the packets unread by itself.

use std::net::IpAddr;

use self::kernel::Outlet;

/// Networks that are shut out at one time: a few instructions each, and jumps reach 255 of them.
const MAX_SHUT: usize = 64;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Shutter {
    outlet: Outlet,
    shut: Vec<IpAddr>,
}

impl Shutter {
    /// None where the kernel has no such thing.
    pub(super) fn new(socket: &std::net::UdpSocket) -> Option<Self> {
        Some(Self { outlet: Outlet::new(socket)?, shut: Vec::new() })
    }

    /// Whether it lets everybody's in.
    pub(super) const fn is_open(&self) -> bool {
        self.shut.is_empty()
    }

    /// Shuts this network out as well, as `sieve::network` gives it. What the kernel refuses stays open.
    pub(super) fn shut(&mut self, network: IpAddr) {
        if self.shut.len() < MAX_SHUT && !self.shut.contains(&network) {
            self.shut.push(network);
            self.outlet.narrow(&self.shut);
        }
    }

    /// Lets everybody's in again.
    pub(super) fn open(&mut self) {
        if !self.is_open() {
            self.shut.clear();
            self.outlet.widen();
        }
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use std::net::{IpAddr, UdpSocket};

    use socket2::{SockFilter, Socket};

    use super::super::sieve::{INITIAL, LONG_HEADER};

    // What a program may do (linux/filter.h, linux/bpf_common.h).
    const LOAD_WORD: u16 = 0x20;
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;

    /// Offsets from here count from the header of IP (SKF_NET_OFF).
    const IP: u32 = 0u32.wrapping_sub(0x10_0000);
    /// "Load" which protocol that is (SKF_AD_OFF + SKF_AD_PROTOCOL); and IPv4's number (ETH_P_IP).
    const PROTOCOL: u32 = 0u32.wrapping_sub(0x1000);
    const IPV4: u32 = 0x0800;
    /// Where the sender's address begins in the header of IPv4 and of IPv6.
    const FROM_V4: u32 = IP + 12;
    const FROM_V6: u32 = IP + 8;
    /// Bytes of UDP's header, where the packet begins that the program sees.
    const UDP_HEADER: u32 = 8;

    const KEEP: SockFilter = SockFilter::new(RETURN, 0, 0, u32::MAX);
    const DROP: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

    /// The relay's socket, once more.
    #[derive(Debug)]
    pub(super) struct Outlet(Socket);

    impl Outlet {
        pub(super) fn new(socket: &UdpSocket) -> Option<Self> {
            let own = socket.try_clone().inspect_err(|error| tracing::debug!(%error, "the kernel drops no packets"));
            Some(Self(own.ok()?.into()))
        }

        /// Takes no more first packets from these networks.
        pub(super) fn narrow(&self, shut: &[IpAddr]) {
            if let Err(error) = self.0.attach_filter(&program(shut)) {
                tracing::debug!(%error, "the kernel drops no packets");
            }
        }

        /// Takes all packets.
        pub(super) fn widen(&self) {
            if let Err(error) = self.0.detach_filter() {
                tracing::debug!(%error, "the kernel goes on dropping packets");
            }
        }
    }

    /// Drops a packet (the first one, where several come as one) that is the first of a handshake and is from one of
    /// these networks. A load beyond a packet's end drops it: one without a byte is nobody's.
    fn program(shut: &[IpAddr]) -> Vec<SockFilter> {
        let mut of_v4 = vec![SockFilter::new(LOAD_WORD, 0, 0, FROM_V4)];
        let mut of_v6 = Vec::new();
        for network in shut {
            match network {
                IpAddr::V4(address) => {
                    of_v4.extend([SockFilter::new(JUMP_IF_EQUAL, 0, 1, address.to_bits()), DROP]);
                }
                IpAddr::V6(network) => {
                    let [a, b, c, d, e, f, g, h, ..] = network.octets();
                    of_v6.extend([
                        SockFilter::new(LOAD_WORD, 0, 0, FROM_V6),
                        SockFilter::new(JUMP_IF_EQUAL, 0, 3, u32::from_be_bytes([a, b, c, d])),
                        SockFilter::new(LOAD_WORD, 0, 0, FROM_V6 + 4),
                        SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from_be_bytes([e, f, g, h])),
                        DROP,
                    ]);
                }
            }
        }
        of_v4.push(KEEP);
        of_v6.push(KEEP);
        let past_v4 = u8::try_from(of_v4.len()).unwrap_or(u8::MAX);
        let head = [
            SockFilter::new(LOAD_BYTE, 0, 0, UDP_HEADER),
            SockFilter::new(AND, 0, 0, LONG_HEADER.into()),
            SockFilter::new(JUMP_IF_EQUAL, 1, 0, INITIAL.into()),
            KEEP,
            SockFilter::new(LOAD_WORD, 0, 0, PROTOCOL),
            SockFilter::new(JUMP_IF_EQUAL, 0, past_v4, IPV4),
        ];
        head.into_iter().chain(of_v4).chain(of_v6).collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::net::{IpAddr, UdpSocket};

    #[derive(Debug)]
    pub(super) enum Outlet {}

    impl Outlet {
        pub(super) const fn new(_: &UdpSocket) -> Option<Self> {
            None
        }

        pub(super) const fn narrow(&self, _: &[IpAddr]) {}

        pub(super) const fn widen(&self) {}
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

    use super::super::sieve::{INITIAL, network};
    use super::*;

    /// Which of the packets that these send the relay's socket has got: loopback delivers at once.
    fn arrived(relay: &UdpSocket, from: &[&UdpSocket]) -> Vec<u8> {
        let port = relay.local_addr().unwrap().port();
        for (number, socket) in (0..).zip(from) {
            for first in [INITIAL | 3, 0xe0, 0x40] {
                let ip = socket.local_addr().unwrap().ip();
                let to = if ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { ip };
                socket.send_to(&[first, number], SocketAddr::new(to, port)).unwrap();
            }
        }
        relay.set_nonblocking(true).unwrap();
        let mut packet = [0; 2];
        let mut arrived = Vec::new();
        while relay.recv(&mut packet).is_ok() {
            arrived.push(packet[1] << 4 | packet[0] >> 4);
        }
        arrived
    }

    fn socket(at: &str) -> UdpSocket {
        UdpSocket::bind((at, 0)).unwrap()
    }

    #[test]
    fn the_kernel_drops_first_packets_alone_and_only_those_of_who_is_shut_out() {
        for ours in ["127.0.0.1", "::"] {
            // There may be no IPv6.
            let Ok(relay) = UdpSocket::bind((ours, 0)) else { continue };
            let [one, two] = ["127.0.0.1", "127.0.0.2"].map(socket);
            let mut shutter = Shutter::new(&relay).unwrap();
            let all = vec![0x0c, 0x0e, 0x04, 0x1c, 0x1e, 0x14];
            assert_eq!(arrived(&relay, &[&one, &two]), all, "{ours}");
            // As many as there may be, of both kinds.
            for other in 0..31 {
                shutter.shut(Ipv4Addr::new(10, 0, 0, other).into());
                shutter.shut(network(format!("2001:db8:0:{other}::1").parse().unwrap()));
            }
            shutter.shut("127.0.0.1".parse().unwrap());
            assert_eq!(arrived(&relay, &[&one, &two]), [0x0e, 0x04, 0x1c, 0x1e, 0x14], "{ours}");
            shutter.shut("127.0.0.2".parse().unwrap());
            shutter.shut("127.0.0.3".parse().unwrap());
            assert_eq!(shutter.shut.len(), MAX_SHUT, "{ours}");
            assert_eq!(arrived(&relay, &[&one, &two]), [0x0e, 0x04, 0x1e, 0x14], "{ours}");
            shutter.open();
            assert_eq!(arrived(&relay, &[&one, &two]), all, "{ours}");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_shut_out_by_its_first_64_bits() {
        let Ok(here) = UdpSocket::bind("[::1]:0") else { return };
        let relay = socket("::");
        let mut shutter = Shutter::new(&relay).unwrap();
        shutter.shut(network("0:0:0:1::1".parse().unwrap()));
        shutter.shut(network("0:1::1".parse().unwrap()));
        assert_eq!(arrived(&relay, &[&here]), [0x0c, 0x0e, 0x04]);
        shutter.shut(network("::2".parse().unwrap()));
        assert_eq!(arrived(&relay, &[&here]), [0x0e, 0x04]);
    }
}
