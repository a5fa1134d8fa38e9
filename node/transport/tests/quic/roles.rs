//! Every request kind in every role under every certificate.

use atoll_ring::NodeId;
use atoll_transport::{DialError, Expect, Identity, Link, Quic};
use atoll_wire::{
    ErrorCode, Kind, Lane, Reply, Request, Role, Roles, limits::LANE_FRAME_BYTES_MAX,
};

use crate::house::{
    Papers, Server, envelope, loopback, of_kind, pattern, put, replicate, serve, within,
};

/// A certificate for one role may speak in that role, and then say what the table allows. In any other role it may say
/// nothing at all. What is refused never reaches the node.
#[tokio::test]
async fn the_table_holds_for_every_kind_role_and_certificate() {
    let papers = Papers::new();
    for held in Role::ALL {
        let server = serve(&papers, 1);
        let link = dial(&server, &papers.user(&[held]), held, None).await.unwrap();
        let mut expected = Vec::new();
        for (spoken, kind) in Role::ALL.into_iter().flat_map(|r| Kind::ALL.map(|kind| (r, kind))) {
            let allowed = spoken == held && spoken.may_ask(&of_kind(kind));
            check(&link, spoken, &of_kind(kind), allowed).await;
            if allowed && kind != Kind::Hello {
                expected.push((spoken, kind));
            }
        }
        let seen: Vec<_> =
            server.host.seen().into_iter().map(|(role, kind, _)| (role, kind)).collect();
        assert_eq!(seen, expected, "a certificate for {held}");
    }
}

/// The same table for requests that are too long for a lane.
#[tokio::test]
async fn long_requests_are_checked_too() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let long = pattern(LANE_FRAME_BYTES_MAX);
    for held in Role::ALL {
        let link = dial(&server, &papers.user(&[held]), held, None).await.unwrap();
        for spoken in Role::ALL {
            for request in [put("key", long.clone()), replicate(long.clone())] {
                let allowed = spoken == held && spoken.may_send(request.kind());
                check(&link, spoken, &request, allowed).await;
            }
        }
    }
}

/// A certificate may carry several roles; each frame says which one it is sent in.
#[tokio::test]
async fn one_certificate_may_carry_several_roles() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let both = papers.user(&[Role::Client, Role::Operator]);
    let link = dial(&server, &both, Role::Client, None).await.unwrap();
    for kind in Kind::ALL {
        for role in [Role::Client, Role::Operator] {
            check(&link, role, &of_kind(kind), role.may_ask(&of_kind(kind))).await;
        }
        check(&link, Role::Node, &of_kind(kind), false).await;
    }
}

/// The hello already names a role, so a role that the certificate does not carry does not get in.
#[tokio::test]
async fn a_role_that_is_not_in_the_certificate_gets_no_link() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    for held in Role::ALL {
        let identity = papers.user(&[held]);
        for spoken in Role::ALL.into_iter().filter(|spoken| *spoken != held) {
            let refused = dial(&server, &identity, spoken, None).await;
            refused_with(refused, &format!("the certificate is not for {spoken}"));
        }
    }
}

/// Who a node says it is must be in its certificate; a user is no node at all, even one that may speak as one.
#[tokio::test]
async fn nobody_can_claim_to_be_another_node() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    for (identity, claims) in [(papers.node(2), 3), (papers.user(&[Role::Node]), 2)] {
        let refused = dial(&server, &identity, Role::Node, Some(NodeId(claims))).await;
        refused_with(refused, &format!("the certificate is not n{claims}'s"));
    }
}

/// The handler is told what the certificate says: the roles, and the node once it has been confirmed.
#[tokio::test]
async fn the_handler_knows_the_caller() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let callers = [
        (papers.node(2), Role::Node, Some(NodeId(2)), Roles::of(&[Role::Node])),
        (papers.node(2), Role::Node, None, Roles::of(&[Role::Node])),
        (papers.user(&[Role::Operator]), Role::Operator, None, Roles::of(&[Role::Operator])),
    ];
    for (identity, role, me, roles) in callers {
        let link = dial(&server, &identity, role, me).await.unwrap();
        check(&link, role, &of_kind(Kind::Status), true).await;
        let (_, _, caller) = *server.host.seen().last().unwrap();
        assert_eq!((caller.node, caller.roles), (me, roles));
    }
}

async fn dial(
    server: &Server,
    identity: &Identity,
    role: Role,
    me: Option<NodeId>,
) -> Result<Link, DialError> {
    let quic = Quic::bind(loopback(), identity).unwrap();
    within(quic.dial(server.address, Expect::AnyNode, role, me)).await
}

async fn check(link: &Link, role: Role, request: &Request, allowed: bool) {
    let (_, reply) = within(link.call(Lane::Request, &envelope(role), request)).await.unwrap();
    let refused = matches!(&reply, Reply::Failed(f) if f.code == ErrorCode::NotPermitted);
    assert_eq!(!refused, allowed, "{:?} as {role}: {reply:?}", request.kind());
}

fn refused_with(dialled: Result<Link, DialError>, detail: &str) {
    match dialled.err() {
        Some(DialError::Refused(reason)) => assert!(reason.contains(detail), "{reason}"),
        other => panic!("expected a refusal that says {detail:?}, got {other:?}"),
    }
}
