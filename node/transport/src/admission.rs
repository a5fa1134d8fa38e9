//! Who may come in, and how much each may hold: the bounds that keep one guest from taking what is there for all.
//!
//! ```text
//!   a stranger's packet          Handshakes   so many unfinished, so many from one address;
//!        │                                    past that the oldest of the most crowded address goes
//!        ▼
//!   a certificate that we signed Guests       so many connections, so many of one certificate;
//!        │                                    past that the newcomer is told why
//!        ▼
//!   a request, a reply           Stock        so many bytes of one certificate, so many of its class
//! ```
//!
//! Nodes and others are two classes with stocks of their own, and some seats are for nodes only: whatever clients do,
//! the nodes of the cluster hear each other. What one hostile certificate can make us hold is in the table of limits.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard},
};

use atoll_wire::{
    Role, Roles,
    limits::{STATE_TAIL_BYTES_MAX, VALUE_BYTES_MAX},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
};

/// Handshakes that are not finished. Each costs a few kilobytes and a signature.
pub const HANDSHAKES_MAX: usize = 1024;

/// Of those, from one address (of IPv6: one /64 network). More than a machine full of clients begins within a round
/// trip, and few enough that it takes sixteen addresses to fill the table.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 64;

/// Unfinished handshakes from which on a stranger must first show that it receives packets at the address it sends from:
/// one round trip more for the honest, and the end for those who invent addresses.
pub const UNPROVEN_HANDSHAKES_MAX: usize = 32;

/// Connections at the same time. Each may hold windows and buffers of megabytes.
pub const CONNECTIONS_MAX: usize = 4096;

/// Of those, for certificates of nodes only.
pub const CONNECTIONS_FOR_NODES: usize = 512;

/// Connections of one certificate: an eighth of all. Twice what `atoll bench` opens at most, and many processes may share
/// a certificate.
pub const CONNECTIONS_PER_CERTIFICATE_MAX: usize = 512;

/// Requests and replies up to this length are bounded by their number alone: a ping does not wait behind values, nor its
/// answer.
pub const SMALL_BYTES: usize = 1 << 10;

/// What one certificate may hold, and all of its class together.
///
/// | bytes | one client | all clients | one node | all nodes |
/// |---|---|---|---|---|
/// | requests being read or in work | 64 MiB | 256 MiB | 256 MiB | 512 MiB |
/// | replies that wait to be taken | 128 MiB | 512 MiB | 256 MiB | 1 GiB |
///
/// The largest single request (of a client a value, of a node a state of 66 MiB) must fit each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nodes of the cluster.
    Node,
    /// Everybody else.
    Client,
}

impl Class {
    fn of(roles: Roles) -> Class {
        if roles.contains(Role::Node) { Class::Node } else { Class::Client }
    }

    /// Bytes of requests of one certificate.
    pub const fn request_bytes_max(self) -> usize {
        match self {
            Class::Node => 256 << 20,
            Class::Client => 64 << 20,
        }
    }

    /// Bytes of requests of all certificates of the class.
    pub const fn request_bytes_all_max(self) -> usize {
        match self {
            Class::Node => 512 << 20,
            Class::Client => 256 << 20,
        }
    }

    /// Bytes of replies of one certificate that have not been handed to QUIC.
    pub const fn reply_bytes_max(self) -> usize {
        match self {
            Class::Node => 256 << 20,
            Class::Client => 128 << 20,
        }
    }

    /// Bytes of such replies of all certificates of the class.
    pub const fn reply_bytes_all_max(self) -> usize {
        match self {
            Class::Node => 1 << 30,
            Class::Client => 512 << 20,
        }
    }

    /// Bytes of a connection that may have arrived and not be read: QUIC's flow control allows no more.
    pub const fn receive_window_bytes(self) -> u32 {
        match self {
            Class::Node => 16 << 20,
            Class::Client => 2 << 20,
        }
    }

    /// Bytes of a connection that may have been sent and not be confirmed.
    pub const fn send_window_bytes(self) -> u64 {
        match self {
            Class::Node => 16 << 20,
            Class::Client => 4 << 20,
        }
    }
}

const _: () = {
    assert!(Class::Client.request_bytes_max() >= 2 * VALUE_BYTES_MAX);
    assert!(Class::Client.reply_bytes_max() >= STATE_TAIL_BYTES_MAX + (1 << 20));
    assert!(Class::Node.request_bytes_max() >= STATE_TAIL_BYTES_MAX + (1 << 20));
};

/// The handshakes that are not finished.
#[derive(Default)]
pub(crate) struct Handshakes {
    begun: BTreeMap<IpAddr, VecDeque<Begun>>,
    count: usize,
    next: u64,
}

struct Begun {
    number: u64,
    task: AbortHandle,
}

/// Says which handshake has ended.
#[derive(Clone, Copy)]
pub(crate) struct Number(IpAddr, u64);

impl Handshakes {
    /// Whether a stranger should first prove its address.
    pub(crate) fn want_proof(&self) -> bool {
        self.count >= UNPROVEN_HANDSHAKES_MAX
    }

    /// The number of the next handshake from this address.
    pub(crate) fn number(&mut self, from: IpAddr) -> Number {
        self.next += 1;
        Number(network(from), self.next)
    }

    /// Enters a handshake that has begun.
    ///
    /// Where there is no room the oldest goes that has the least right to stay. An honest handshake takes a round trip, so
    /// it is over before its turn comes; refusing the newest instead would let whoever never finishes keep the door shut.
    pub(crate) fn enter(&mut self, number: Number, task: AbortHandle) {
        let Number(from, number) = number;
        if self.begun.get(&from).is_some_and(|all| all.len() >= HANDSHAKES_PER_ADDRESS_MAX) {
            self.end_oldest(from);
        } else if self.count >= HANDSHAKES_MAX {
            let crowded = self.begun.iter().max_by_key(|(_, all)| all.len());
            let crowded = *crowded.expect("the table is full").0;
            self.end_oldest(crowded);
        }
        self.begun.entry(from).or_default().push_back(Begun { number, task });
        self.count += 1;
    }

    /// A handshake has succeeded or failed.
    pub(crate) fn leave(&mut self, Number(from, number): Number) {
        let Some(all) = self.begun.get_mut(&from) else { return };
        let before = all.len();
        all.retain(|begun| begun.number != number);
        self.count -= before - all.len();
        if all.is_empty() {
            self.begun.remove(&from);
        }
    }

    fn end_oldest(&mut self, from: IpAddr) {
        let Some(all) = self.begun.get_mut(&from) else { return };
        if let Some(oldest) = all.pop_front() {
            oldest.task.abort();
            self.count -= 1;
        }
        if all.is_empty() {
            self.begun.remove(&from);
        }
    }
}

/// What counts as one address: whoever has an IPv6 address has a /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

/// Everybody who is in, by certificate.
pub(crate) struct Guests {
    table: Mutex<Table>,
    nodes: Store,
    clients: Store,
}

#[derive(Default)]
struct Table {
    /// Connections of clients and of nodes.
    clients: usize,
    nodes: usize,
    certificates: HashMap<Fingerprint, Entry>,
}

struct Entry {
    connections: usize,
    store: Arc<Store>,
}

/// The bytes that a certificate, or a class, may hold.
struct Store {
    requests: Arc<Semaphore>,
    replies: Arc<Stock>,
}

/// blake3 of a certificate.
pub(crate) type Fingerprint = [u8; 32];

/// Why there is no seat. Said to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("too many connections of this certificate")]
    Certificate,
    #[error("too many connections")]
    House,
}

impl Guests {
    pub(crate) fn new() -> Arc<Guests> {
        let store = |class: Class| Store {
            requests: Arc::new(Semaphore::new(class.request_bytes_all_max())),
            replies: Stock::new(class.reply_bytes_all_max()),
        };
        let (nodes, clients) = (store(Class::Node), store(Class::Client));
        Arc::new(Guests { table: Mutex::default(), nodes, clients })
    }

    /// A seat for one connection of this certificate.
    pub(crate) fn seat(self: &Arc<Self>, who: Fingerprint, roles: Roles) -> Result<Seat, Full> {
        let class = Class::of(roles);
        let mut table = self.table();
        let held = table.certificates.get(&who).map_or(0, |entry| entry.connections);
        if held >= CONNECTIONS_PER_CERTIFICATE_MAX {
            return Err(Full::Certificate);
        }
        let room = match class {
            Class::Node => CONNECTIONS_MAX,
            Class::Client => CONNECTIONS_MAX - CONNECTIONS_FOR_NODES,
        };
        if table.clients + table.nodes >= room {
            return Err(Full::House);
        }
        *table.of(class) += 1;
        let entry = table.certificates.entry(who).or_insert_with(|| Entry {
            connections: 0,
            store: Arc::new(Store {
                requests: Arc::new(Semaphore::new(class.request_bytes_max())),
                replies: Stock::new(class.reply_bytes_max()),
            }),
        });
        entry.connections += 1;
        let store = entry.store.clone();
        drop(table);
        Ok(Seat { guests: self.clone(), who, class, store })
    }

    fn store(&self, class: Class) -> &Store {
        match class {
            Class::Node => &self.nodes,
            Class::Client => &self.clients,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no panic holds it")
    }
}

impl Table {
    fn of(&mut self, class: Class) -> &mut usize {
        match class {
            Class::Node => &mut self.nodes,
            Class::Client => &mut self.clients,
        }
    }
}

/// A connection's right to be here. Dropping it makes room.
pub(crate) struct Seat {
    guests: Arc<Guests>,
    who: Fingerprint,
    class: Class,
    store: Arc<Store>,
}

/// Room for the bytes of one request, taken from the certificate's share and from the class's.
pub(crate) struct RequestRoom {
    _own: OwnedSemaphorePermit,
    _class: OwnedSemaphorePermit,
}

/// Room for the bytes of one reply, likewise; a small one takes none.
pub(crate) struct ReplyRoom {
    _taken: Option<(Taken, Taken)>,
}

impl ReplyRoom {
    pub(crate) fn none() -> ReplyRoom {
        ReplyRoom { _taken: None }
    }
}

impl Seat {
    pub(crate) fn class(&self) -> Class {
        self.class
    }

    /// Waits for room for a request of so many bytes; one that is small needs none. Who waits holds at most its own share,
    /// always the share first and the class second, so nobody waits in a circle.
    pub(crate) async fn request_room(&self, bytes: usize) -> Option<RequestRoom> {
        if bytes <= SMALL_BYTES {
            return None;
        }
        let bytes = u32::try_from(bytes).expect("caps of frames are far below 4 GiB");
        let own = self.store.requests.clone().acquire_many_owned(bytes);
        let own = own.await.expect("never closed");
        let class = self.guests.store(self.class).requests.clone().acquire_many_owned(bytes);
        Some(RequestRoom { _own: own, _class: class.await.expect("never closed") })
    }

    /// Room for a reply, at once or not at all: it is in memory already.
    pub(crate) fn reply_room(&self, bytes: usize) -> Option<ReplyRoom> {
        if bytes <= SMALL_BYTES {
            return Some(ReplyRoom::none());
        }
        let own = self.store.replies.take(bytes)?;
        let class = self.guests.store(self.class).replies.take(bytes)?;
        Some(ReplyRoom { _taken: Some((own, class)) })
    }

    /// Waits until the certificate's replies have been taken away at least down to the half of what may wait. Who asks and
    /// does not listen is not asked for its next question.
    pub(crate) async fn replies_taken(&self) {
        self.store.replies.at_most(self.class.reply_bytes_max() / 2).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.guests.table();
        *table.of(self.class) -= 1;
        let entry = table.certificates.get_mut(&self.who).expect("seated");
        entry.connections -= 1;
        if entry.connections == 0 {
            // bytes that are still held go back to the class by themselves
            table.certificates.remove(&self.who);
        }
    }
}

/// Bytes that may be held. Unlike a semaphore it never reserves for those who wait, so whoever asks for some now gets
/// what is there.
struct Stock {
    most: usize,
    held: Mutex<usize>,
    freed: Notify,
}

/// Some of a stock. Dropping it gives it back.
struct Taken {
    stock: Arc<Stock>,
    bytes: usize,
}

impl Stock {
    fn new(most: usize) -> Arc<Stock> {
        Arc::new(Stock { most, held: Mutex::new(0), freed: Notify::new() })
    }

    fn take(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let mut held = self.held.lock().expect("no panic holds it");
        if bytes > self.most - *held {
            return None;
        }
        *held += bytes;
        drop(held);
        Some(Taken { stock: self.clone(), bytes })
    }

    /// Waits until no more than so many are held.
    async fn at_most(&self, bytes: usize) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable(); // from here on nothing is missed
            if *self.held.lock().expect("no panic holds it") <= bytes {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.stock.held.lock().expect("no panic holds it") -= self.bytes;
        self.stock.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn client() -> Roles {
        Roles::of(&[Role::Client])
    }

    fn node() -> Roles {
        Roles::of(&[Role::Node, Role::Client])
    }

    fn number(number: usize) -> Fingerprint {
        let mut who = [0; 32];
        who[..8].copy_from_slice(&(number as u64).to_le_bytes());
        who
    }

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    /// Begins handshakes that are never finished, and gives their numbers and tasks.
    fn begin(
        handshakes: &mut Handshakes,
        from: IpAddr,
        count: usize,
    ) -> Vec<(Number, tokio::task::JoinHandle<()>)> {
        let one = |_| {
            let (number, task) = (handshakes.number(from), tokio::spawn(pending()));
            handshakes.enter(number, task.abort_handle());
            (number, task)
        };
        (0..count).map(one).collect()
    }

    /// Past its share an address loses its own oldest handshake and nobody else's.
    #[tokio::test]
    async fn an_address_pushes_out_its_own_oldest() {
        let mut handshakes = Handshakes::default();
        let mut honest = begin(&mut handshakes, address(1), 1);
        let flood = begin(&mut handshakes, address(2), HANDSHAKES_PER_ADDRESS_MAX + 3);
        assert_eq!(handshakes.count, 1 + HANDSHAKES_PER_ADDRESS_MAX);
        for (index, (_, task)) in flood.into_iter().enumerate() {
            if index < 3 {
                assert!(task.await.unwrap_err().is_cancelled());
            } else {
                assert!(!task.is_finished());
            }
        }
        let (first, task) = honest.remove(0);
        assert!(!task.is_finished());
        handshakes.leave(first);
        handshakes.leave(first); // twice is once
        assert_eq!(handshakes.count, HANDSHAKES_PER_ADDRESS_MAX);
    }

    /// A full table makes room at whoever takes most of it, and never grows. One network of IPv6 is one address.
    #[tokio::test]
    async fn a_full_table_makes_room_where_it_is_crowded() {
        let mut handshakes = Handshakes::default();
        let v6 = |host: u128| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) + host));
        assert!(!handshakes.want_proof());
        let honest = begin(&mut handshakes, address(1), 1);
        for host in 0..2 * HANDSHAKES_PER_ADDRESS_MAX as u128 {
            begin(&mut handshakes, v6(host), 1);
        }
        assert_eq!(handshakes.count, 1 + HANDSHAKES_PER_ADDRESS_MAX);
        assert!(handshakes.want_proof());
        for many in 0..2 * HANDSHAKES_MAX as u32 {
            begin(&mut handshakes, address(1000 + many / 60), 1);
            assert!(handshakes.count <= HANDSHAKES_MAX);
        }
        assert_eq!(handshakes.count, HANDSHAKES_MAX);
        assert_eq!(handshakes.begun.values().map(VecDeque::len).sum::<usize>(), HANDSHAKES_MAX);
        tokio::task::yield_now().await;
        assert!(!honest[0].1.is_finished(), "its address was never crowded");
    }

    /// One certificate takes its share and no more; the others and itself get in again as seats come free.
    #[test]
    fn one_certificate_cannot_take_all_seats() {
        let guests = Guests::new();
        let mut seats: Vec<Seat> = (0..CONNECTIONS_PER_CERTIFICATE_MAX)
            .map(|_| guests.seat(number(1), client()).unwrap())
            .collect();
        assert_eq!(guests.seat(number(1), client()).err(), Some(Full::Certificate));
        assert!(guests.seat(number(2), client()).is_ok());
        seats.pop();
        assert!(guests.seat(number(1), client()).is_ok());
        drop(seats);
        let table = guests.table();
        assert_eq!((table.clients, table.nodes, table.certificates.len()), (0, 0, 0));
    }

    /// However many clients come, the seats for nodes stay free; and when all are taken nobody gets in.
    #[test]
    fn clients_leave_room_for_nodes() {
        let guests = Guests::new();
        let mut seats = Vec::new();
        while let Ok(seat) = guests.seat(number(seats.len() / 100), client()) {
            seats.push(seat);
        }
        assert_eq!(seats.len(), CONNECTIONS_MAX - CONNECTIONS_FOR_NODES);
        assert_eq!(guests.seat(number(9999), client()).err(), Some(Full::House));
        while let Ok(seat) = guests.seat(number(seats.len() / 100), node()) {
            seats.push(seat);
        }
        assert_eq!(seats.len(), CONNECTIONS_MAX);
        assert_eq!(guests.seat(number(9999), node()).err(), Some(Full::House));
    }

    /// Bytes of requests: past the share the next one waits until one is done, and a small one never does. Another
    /// certificate has a share of its own.
    #[tokio::test]
    async fn requests_wait_for_room() {
        let guests = Guests::new();
        let (one, other) =
            (guests.seat(number(1), client()).unwrap(), guests.seat(number(2), client()).unwrap());
        let most = Class::Client.request_bytes_max();
        let whole = one.request_room(most).await;
        assert!(whole.is_some());
        let next = one.request_room(SMALL_BYTES + 1);
        tokio::pin!(next);
        let waits =
            tokio::select! { biased; _ = &mut next => false, () = std::future::ready(()) => true };
        assert!(waits);
        assert!(one.request_room(SMALL_BYTES).await.is_none());
        assert!(other.request_room(most).await.is_some());
        drop(whole);
        assert!(next.await.is_some());
    }

    /// Bytes of replies: past the share there is no room, also not for another connection of the same certificate, and
    /// whoever waits for the half hears of it.
    #[tokio::test]
    async fn replies_have_room_or_not() {
        let guests = Guests::new();
        let (one, same) =
            (guests.seat(number(1), client()).unwrap(), guests.seat(number(1), client()).unwrap());
        let most = Class::Client.reply_bytes_max();
        let half = one.reply_room(most / 2).unwrap();
        one.replies_taken().await;
        let rest = same.reply_room(most / 2).unwrap();
        assert!(
            one.reply_room(SMALL_BYTES + 1).is_none() && same.reply_room(SMALL_BYTES).is_some()
        );
        let taken = one.replies_taken();
        tokio::pin!(taken);
        let waits = tokio::select! { biased; () = &mut taken => false, () = std::future::ready(()) => true };
        assert!(waits);
        drop((half, rest));
        taken.await;
    }

    /// A class has less than all its certificates could have, and the classes do not take from each other.
    #[test]
    fn classes_are_bounded_apart() {
        let guests = Guests::new();
        let most = Class::Client.reply_bytes_max();
        let seats: Vec<Seat> =
            (0..10).map(|who| guests.seat(number(who), client()).unwrap()).collect();
        let rooms: Vec<ReplyRoom> = seats.iter().filter_map(|seat| seat.reply_room(most)).collect();
        assert_eq!(rooms.len(), Class::Client.reply_bytes_all_max() / most);
        let node = guests.seat(number(99), node()).unwrap();
        assert!(node.reply_room(Class::Node.reply_bytes_max()).is_some());
    }
}
