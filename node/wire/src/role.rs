//! Who may say what.
//!
//! A certificate carries roles; a frame names the one its sender speaks in. The receiver checks both: the role must be
//! in the certificate, and the table below must allow it to send the message.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Change, Kind, Request};

/// In which capacity a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// A member of the ring.
    Node,
    /// Somebody who reads and writes data.
    Client,
    /// Somebody who runs the cluster; may also do what a client may.
    Operator,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 3] = [Role::Node, Role::Client, Role::Operator];

    /// The one table: may this role send a request of this kind? Of a change of buckets more is asked by
    /// [`Role::may_ask`].
    ///
    /// | kind | node | client | operator |
    /// |---|---|---|---|
    /// | hello, view, status | yes | yes | yes |
    /// | write, get | yes (handing over) | yes | yes |
    /// | many, list, explain | no | yes | yes |
    /// | put, get, delete | yes (handing over) | yes | yes |
    /// | buckets | yes | yes | yes |
    /// | change of buckets: create | no | yes | yes |
    /// | change of buckets: alter, drop | no | no | yes |
    /// | change of buckets: join | yes | no | no |
    /// | propose, moves | yes | no | yes |
    /// | repair status, repair run, dump, faults | no | no | yes |
    /// | ping, replicate, fetch, recall, compare roots, compare, entries, raft, copy, covered, scan | yes | no | no |
    pub fn may_send(self, kind: Kind) -> bool {
        match kind {
            Kind::Hello | Kind::View | Kind::Status | Kind::Write | Kind::Get => true,
            Kind::Many | Kind::List | Kind::Explain => match self {
                Role::Client | Role::Operator => true,
                Role::Node => false,
            },
            Kind::BucketChange | Kind::Buckets => true,
            Kind::Propose | Kind::Moves => match self {
                Role::Node | Role::Operator => true,
                Role::Client => false,
            },
            Kind::RepairStatus | Kind::RepairRun | Kind::Dump | Kind::Faults => match self {
                Role::Operator => true,
                Role::Node | Role::Client => false,
            },
            Kind::Ping
            | Kind::Replicate
            | Kind::Fetch
            | Kind::Recall
            | Kind::CompareRoots
            | Kind::Compare
            | Kind::Entries
            | Kind::Raft
            | Kind::Copy
            | Kind::Covered
            | Kind::Scan => match self {
                Role::Node => true,
                Role::Client | Role::Operator => false,
            },
        }
    }

    /// The same for a request that has been read: what changes buckets depends on how.
    ///
    /// Whoever reads and writes data may make a place for it. What takes data away from others, or changes what their
    /// requests mean, is an operator's.
    pub fn may_ask(self, request: &Request) -> bool {
        let of_change = match request {
            Request::BucketChange(asked) => match (&asked.change, self) {
                (Change::Create(_), Role::Client | Role::Operator) => true,
                (Change::Alter(..) | Change::Drop(_), Role::Operator) => true,
                (Change::Join, Role::Node) => true,
                (
                    Change::Create(_) | Change::Alter(..) | Change::Drop(_) | Change::Join,
                    Role::Node | Role::Client | Role::Operator,
                ) => false,
            },
            _ => true,
        };
        of_change && self.may_send(request.kind())
    }

    /// The word used in certificates, settings and messages.
    pub fn word(self) -> &'static str {
        match self {
            Role::Node => "node",
            Role::Client => "client",
            Role::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The roles in a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// These roles and no others.
    pub fn of(roles: &[Role]) -> Self {
        roles.iter().fold(Roles(0), |all, role| Roles(all.0 | 1 << *role as u8))
    }

    /// Whether the certificate carries this role.
    pub fn contains(self, role: Role) -> bool {
        self.0 & 1 << role as u8 != 0
    }

    /// Whether a request of this kind may come from this certificate, in whichever role: known before the request is
    /// read.
    pub fn may_send(self, kind: Kind) -> bool {
        Role::ALL.into_iter().any(|role| self.contains(role) && role.may_send(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as it is printed in the documentation, said a second time by hand.
    #[test]
    fn every_message_with_every_role() {
        let expected = [
            (Kind::Hello, [true, true, true]),
            (Kind::Ping, [true, false, false]),
            (Kind::View, [true, true, true]),
            (Kind::Status, [true, true, true]),
            (Kind::Write, [true, true, true]),
            (Kind::Get, [true, true, true]),
            (Kind::Many, [false, true, true]),
            (Kind::List, [false, true, true]),
            (Kind::Explain, [false, true, true]),
            (Kind::Replicate, [true, false, false]),
            (Kind::Fetch, [true, false, false]),
            (Kind::RepairStatus, [false, false, true]),
            (Kind::RepairRun, [false, false, true]),
            (Kind::Dump, [false, false, true]),
            (Kind::Faults, [false, false, true]),
            (Kind::Recall, [true, false, false]),
            (Kind::CompareRoots, [true, false, false]),
            (Kind::Compare, [true, false, false]),
            (Kind::Entries, [true, false, false]),
            (Kind::Propose, [true, false, true]),
            (Kind::Moves, [true, false, true]),
            (Kind::Raft, [true, false, false]),
            (Kind::Copy, [true, false, false]),
            (Kind::Covered, [true, false, false]),
            (Kind::Scan, [true, false, false]),
            (Kind::BucketChange, [true, true, true]),
            (Kind::Buckets, [true, true, true]),
        ];
        assert_eq!(expected.len(), Kind::ALL.len(), "a new kind needs its line here");
        for (kind, may) in expected {
            for (role, may) in Role::ALL.into_iter().zip(may) {
                assert_eq!(role.may_send(kind), may, "{role} sending {kind:?}");
            }
        }
    }

    /// Who may change buckets, and how.
    #[test]
    fn every_change_of_buckets_with_every_role() {
        let bucket = crate::BucketId([0; 16]);
        let creation = crate::bucket::Creation {
            name: "a".into(),
            kind: atoll_antientropy::Kind::Register,
            n: None,
            properties: crate::bucket::Properties::default(),
        };
        let expected = [
            (Change::Create(creation), [false, true, true]),
            (Change::Alter(bucket, crate::bucket::Alteration::default()), [false, false, true]),
            (Change::Drop(bucket), [false, false, true]),
            (Change::Join, [true, false, false]),
        ];
        for (change, may) in expected {
            let asked = crate::BucketChange { change, registry: bytes::Bytes::new() };
            let request = Request::BucketChange(asked);
            for (role, may) in Role::ALL.into_iter().zip(may) {
                assert_eq!(role.may_ask(&request), may, "{role} asking {request:?}");
            }
        }
    }

    #[test]
    fn a_certificate_carries_exactly_the_roles_it_was_given() {
        let roles = Roles::of(&[Role::Client, Role::Operator]);
        assert!(roles.contains(Role::Client) && roles.contains(Role::Operator));
        assert!(!roles.contains(Role::Node));
        assert!(Role::ALL.iter().all(|r| !Roles::default().contains(*r)));
        for kind in Kind::ALL {
            assert_eq!(roles.may_send(kind), Role::Operator.may_send(kind), "{kind:?}");
            assert!(Roles::of(&Role::ALL).may_send(kind) && !Roles::default().may_send(kind));
        }
    }
}
