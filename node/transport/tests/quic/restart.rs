//! A peer that vanishes without a word, and one that comes back.

use std::{net::SocketAddr, sync::mpsc, thread::JoinHandle};

use atoll_ring::NodeId;
use atoll_transport::{CallError, CloseReason, Expect, Identity, Link, Quic};
use atoll_wire::{Lane, Role};
use tokio::sync::oneshot;

use crate::house::{AT_THE_GATE, Host, Papers, ask, fetch, loopback, still_served, until, within};

/// A host in a thread and a runtime of its own, so that it can be killed: nothing is closed, no goodbye is said.
pub struct Process {
    pub address: SocketAddr,
    host: std::sync::Arc<Host>,
    kill: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Process {
    pub fn start(identity: Identity, address: SocketAddr) -> Process {
        let (kill, killed) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let host = Host::new(1);
            let quic = runtime.block_on(async {
                let quic = Quic::bind(address, &identity).unwrap();
                let (accepting, handler) = (quic.clone(), host.clone());
                tokio::spawn(async move { accepting.serve(handler).await });
                ready.send((quic.address().unwrap(), host)).unwrap();
                killed.await.unwrap();
                quic
            });
            drop(runtime); // whatever runs is dropped where it stands; only then the socket closes
            drop(quic);
        });
        let (address, host) = started.recv().unwrap();
        Process { address, host, kill, thread }
    }

    pub fn kill(self) {
        self.kill.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

/// An address whose port nobody takes while its owner is away: the other tests get their ports on 127.0.0.1, and Linux
/// counts ports per address.
pub fn own_address(last: u8) -> SocketAddr {
    let last = if cfg!(target_os = "linux") { last } else { 1 };
    SocketAddr::from(([127, 0, 0, last], 0))
}

/// The new life of a process knows nothing of the connections of the former one, but it can prove that it is the one
/// they were made to, because both keys come from its private key. So the first packet it gets draws a reset: who waits
/// hears it, and the reason says what happened.
#[tokio::test]
async fn a_restarted_peer_is_noticed_by_its_reset() {
    let papers = Papers::new();
    let process = Process::start(papers.node(1), own_address(2));
    let address = process.address;
    let link = std::sync::Arc::new(dial(&papers, address).await);
    let host = process.host.clone();
    let held = link.clone();
    let waiting = tokio::spawn(async move { ask(&held, Lane::Request, &fetch(AT_THE_GATE)).await });
    until("the request is in work", || host.in_work() == 1).await;

    process.kill();
    let process = Process::start(papers.node(1), address);
    assert_eq!(within(link.closed()).await, CloseReason::Reset);
    let lost = within(waiting).await.unwrap();
    assert_eq!(lost, Err(CallError::Lost("the peer was restarted".into())));
    assert_eq!(within(link.closed()).await, CloseReason::Reset, "the reason stays");

    still_served(&dial(&papers, address).await).await;
    process.kill();
}

/// Without a new life there is nobody to send a reset. Silence is noticed too, later, and under its own name.
#[tokio::test]
async fn slow_a_vanished_peer_is_missed() {
    let papers = Papers::new();
    let process = Process::start(papers.node(1), own_address(3));
    let link = dial(&papers, process.address).await;
    process.kill();
    assert_eq!(within(link.closed()).await, CloseReason::Silent);
}

async fn dial(papers: &Papers, address: SocketAddr) -> Link {
    let quic = Quic::bind(loopback(), &papers.node(9)).unwrap();
    let dial = quic.dial(address, Expect::Node(NodeId(1)), Role::Node, Some(NodeId(9)));
    within(dial).await.unwrap()
}
