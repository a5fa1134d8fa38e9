//! Which ports a testnet gets: one UDP port per node, one behind the other.
//!
//! Blocks begin at the base port and then every ten ports (every hundred for more than ten nodes), so that with the
//! default base 7401 node n3 is found at 7403, in the second testnet at 7413, and so on. A block is good if all its
//! ports can be bound now and no other testnet has written one of them down, be it running or not.

use std::{
    net::{Ipv4Addr, UdpSocket},
    ops::Range,
};

/// The base port of a testnet that does not ask.
pub const BASE_PORT: u16 = 7401;

/// No block of ports is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {nodes} free UDP ports in a row at or above {base_port}")]
pub struct NoPorts {
    /// Where the search began.
    pub base_port: u16,
    /// How many are needed.
    pub nodes: u32,
}

/// The first port of the first good block at or above `base_port`.
///
/// `taken` are the ports that others have written down; `is_free` says whether a port can be bound.
pub(crate) fn first_free(
    base_port: u16,
    nodes: u32,
    taken: &[Range<u32>],
    is_free: impl Fn(u16) -> bool,
) -> Result<u16, NoPorts> {
    (base_port..=u16::MAX)
        .step_by(stride(nodes))
        .find(|first| {
            block(*first, nodes).all(|port| {
                !taken.iter().any(|block| block.contains(&port))
                    && u16::try_from(port).is_ok_and(&is_free)
            })
        })
        .ok_or(NoPorts { base_port, nodes })
}

/// The ports of a testnet whose first node has this port.
pub(crate) fn block(first: u16, nodes: u32) -> Range<u32> {
    u32::from(first)..u32::from(first) + nodes
}

/// How far the blocks are apart.
pub(crate) fn stride(nodes: u32) -> usize {
    if nodes <= 10 { 10 } else { 100 }
}

/// Whether a node could take this port now.
pub(crate) fn is_free(port: u16) -> bool {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Base port, nodes, ports in use, blocks written down → the first port of the block.
    #[test]
    fn the_first_block_that_nobody_uses() {
        let check = |nodes: u32, used: &[u16], taken: &[Range<u32>], expected| {
            let first = first_free(7401, nodes, taken, |port| !used.contains(&port));
            assert_eq!(first.ok(), expected, "{nodes} {used:?} {taken:?}");
        };
        check(5, &[], &[], Some(7401));
        check(5, &[7400, 7406], &[], Some(7401));
        check(5, &[7405], &[], Some(7411));
        check(5, &[7401, 7412], &[], Some(7421));
        // a stopped testnet keeps its ports
        check(5, &[], &[block(7401, 5)], Some(7411));
        check(5, &[7411], &[block(7401, 5)], Some(7421));
        // a big one in the way
        check(3, &[], &[block(7401, 25)], Some(7431));
        check(11, &[], &[block(7411, 3)], Some(7501));
        // nothing left
        assert!(first_free(65_533, 5, &[], |_| true).is_err());
        assert_eq!(first_free(65_531, 5, &[], |_| true), Ok(65_531));
    }

    /// The real check sees a real socket.
    #[test]
    fn a_bound_port_is_not_free() {
        let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        assert!(!is_free(port));
        let first = first_free(port, 1, &[], is_free);
        assert!(first != Ok(port));
    }
}
