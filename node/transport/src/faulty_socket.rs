//! The socket of a node that may be broken on purpose: what a link's faults say, done to its datagrams.
//!
//! It stands between QUIC and the real socket, and only in a node that was started with `--allow-faults`. What goes to an
//! address without faults passes as it is. Of the rest each datagram has a [`Fate`]: it is lost, or leaves when its time
//! has come, from a queue with a task of its own. Everything happens on the sender's side; what is received passes.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    future::poll_fn,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use tokio::{sync::Notify, task::JoinHandle};

use crate::link_faults::{Fate, LinkFaults};

/// Datagrams that wait for their time, on all links together: some twenty megabytes of them. What does not fit is lost, as in
/// a router.
const WAITING_MAX: usize = 16 << 10;

/// A socket with faults.
#[derive(Debug)]
pub(crate) struct FaultySocket {
    socket: Arc<dyn AsyncUdpSocket>,
    faults: Arc<LinkFaults>,
    waiting: Arc<Waiting>,
    /// Sends what has waited.
    sender: JoinHandle<()>,
}

/// Datagrams that wait for their time.
#[derive(Debug, Default)]
struct Waiting {
    queue: Mutex<Queue>,
    /// The queue has another first.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    datagrams: BinaryHeap<Reverse<Datagram>>,
    /// How many there ever were: of those with one time the first goes first.
    count: u64,
}

/// A datagram with a time. Ordered by that.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Datagram {
    at_micros: u64,
    number: u64,
    to: SocketAddr,
    from: Option<IpAddr>,
    ecn: Option<u8>,
    contents: Vec<u8>,
}

impl FaultySocket {
    /// Puts faults before a socket. Must be called inside a runtime.
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>, faults: Arc<LinkFaults>) -> Self {
        let waiting = Arc::new(Waiting::default());
        let sender = tokio::spawn(send_in_time(socket.clone(), faults.clone(), waiting.clone()));
        FaultySocket { socket, faults, waiting, sender }
    }

    /// One datagram, which is lost, sent, or told to wait. QUIC takes it for sent in any case.
    fn meet(&self, one: &Transmit<'_>) -> io::Result<()> {
        let Fate::Arrives { at_micros, twice } =
            self.faults.fate(one.destination, one.contents.len())
        else {
            return Ok(());
        };
        let is_due = at_micros <= self.faults.micros(tokio::time::Instant::now());
        for _ in 0..1 + usize::from(twice) {
            if is_due {
                match self.socket.try_send(one) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    sent => {
                        sent?;
                        continue;
                    }
                }
            }
            self.waiting.push(at_micros, one);
        }
        Ok(())
    }
}

impl Drop for FaultySocket {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

impl AsyncUdpSocket for FaultySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.faults.touches(transmit.destination) {
            return self.socket.try_send(transmit);
        }
        // what QUIC hands over may be several datagrams, of one length but for the last
        let length = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for contents in transmit.contents.chunks(length) {
            self.meet(&Transmit {
                destination: transmit.destination,
                ecn: transmit.ecn,
                contents,
                segment_size: None,
                src_ip: transmit.src_ip,
            })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

impl Waiting {
    fn push(&self, at_micros: u64, one: &Transmit<'_>) {
        let mut queue = self.queue.lock().expect("no panic holds it");
        if queue.datagrams.len() >= WAITING_MAX {
            return;
        }
        let is_first =
            queue.datagrams.peek().is_none_or(|Reverse(first)| at_micros < first.at_micros);
        queue.count += 1;
        let number = queue.count;
        queue.datagrams.push(Reverse(Datagram {
            at_micros,
            number,
            to: one.destination,
            from: one.src_ip,
            ecn: one.ecn.map(|ecn| ecn as u8),
            contents: one.contents.to_vec(),
        }));
        drop(queue);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// The next one, if its time has come; else when that will be, if there is one.
    fn pop(&self, now_micros: u64) -> Result<Datagram, Option<u64>> {
        let mut queue = self.queue.lock().expect("no panic holds it");
        match queue.datagrams.peek() {
            Some(Reverse(first)) if first.at_micros <= now_micros => {
                Ok(queue.datagrams.pop().expect("was there").0)
            }
            first => Err(first.map(|Reverse(first)| first.at_micros)),
        }
    }
}

impl Datagram {
    fn transmit(&self) -> Transmit<'_> {
        Transmit {
            destination: self.to,
            ecn: self.ecn.and_then(EcnCodepoint::from_bits),
            contents: &self.contents,
            segment_size: None,
            src_ip: self.from,
        }
    }
}

/// Sends each datagram when its time has come. What is on its way to a node when the link is cut is lost with it.
async fn send_in_time(
    socket: Arc<dyn AsyncUdpSocket>,
    faults: Arc<LinkFaults>,
    waiting: Arc<Waiting>,
) {
    let mut poller = socket.clone().create_io_poller();
    loop {
        match waiting.pop(faults.micros(tokio::time::Instant::now())) {
            Ok(datagram) if faults.is_cut(datagram.to) => {}
            Ok(datagram) => {
                // an error is what a network does to a datagram; QUIC will notice that it was lost
                while let Err(error) = socket.try_send(&datagram.transmit())
                    && error.kind() == io::ErrorKind::WouldBlock
                {
                    if poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.is_err() {
                        return;
                    }
                }
            }
            Err(next) => {
                let in_time = async {
                    match next {
                        Some(at_micros) => tokio::time::sleep_until(faults.moment(at_micros)).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! { biased;
                    () = waiting.changed.notified() => {}
                    () = in_time => {}
                }
            }
        }
    }
}
