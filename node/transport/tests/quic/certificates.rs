//! Who does not get in: strangers, the expired, and the right people at the wrong door.

use std::{
    os::unix::fs::PermissionsExt as _,
    time::{Duration, SystemTime},
};

use atoll_ring::NodeId;
use atoll_transport::{
    CallError, CloseReason, DialError, Expect, Identity, IdentityError, Link, Quic,
};
use atoll_wire::{ALPN, ErrorCode, Hello, Lane, Reply, Request, Role};

use crate::{
    house::{CLUSTER, Papers, Server, ask, envelope, link, loopback, serve, serve_as, within},
    raw,
};

/// A certificate of another authority opens nothing, on either side.
#[tokio::test]
async fn another_authority_is_refused_on_both_sides() {
    let (ours, theirs) = (Papers::new(), Papers::new());
    let server = serve(&ours, 1);
    // the dialler does not know the server's authority
    refused(dial(&server, &theirs.user(&[Role::Client])).await);
    // the server does not know the dialler's: a client that trusts us, with papers that are not ours
    theirs.user(&[Role::Client]);
    std::fs::copy(ours.path("ca.pem"), theirs.path("ca.pem")).unwrap();
    refused(dial(&server, &theirs.load("user")).await);
}

/// Without a certificate the handshake seems to succeed, and then nothing is answered.
#[tokio::test]
async fn nobody_gets_in_without_a_certificate() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    if let Ok(connection) = within(raw::dial(&papers, None, ALPN, server.address)).await {
        let end = within(connection.closed()).await;
        assert!(matches!(end, quinn::ConnectionError::ConnectionClosed(_)), "{end}");
    }
}

/// A peer of another protocol version is refused in the handshake.
#[tokio::test]
async fn another_protocol_version_is_refused() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    papers.user(&[Role::Client]);
    let dialled = within(raw::dial(&papers, Some("user"), b"atoll/2", server.address)).await;
    assert!(dialled.is_err());
}

/// TLS 1.3 tells the client that all is well before the server has looked at its certificate. So `dial` waits for the
/// greeting: an expired certificate must not look like a link, and the reason must reach the person.
#[tokio::test]
async fn an_expired_client_is_refused() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let expired = papers.user_for(&[Role::Client], Duration::ZERO);
    next_second().await;
    let reason = refused(dial(&server, &expired).await);
    assert!(reason.contains("expired") || reason.contains("Expired"), "{reason}");
}

/// A session that could be resumed would let a certificate live on after its end. Resumption is off: the same endpoint
/// that got in before is refused when its certificate has expired.
#[tokio::test]
async fn slow_a_certificate_that_was_good_expires() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    for valid in [2, 4, 8, 16, 32].map(Duration::from_secs) {
        let issued = SystemTime::now();
        let identity = papers.user_for(&[Role::Client], valid);
        let quic = Quic::bind(loopback(), &identity).unwrap();
        let dial = || within(quic.dial(server.address, Expect::AnyNode, Role::Client, None));
        let Ok(link) = dial().await else { continue }; // a machine this slow needs a longer life
        while issued.elapsed().unwrap() <= valid + Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        refused(dial().await);
        drop(link);
        refused(dial().await);
        return;
    }
    panic!("never got in");
}

/// TLS looks at a certificate once, in the handshake, so a connection used to outlive its papers for as long as it was
/// kept alive: months, for nodes. Now both sides close it when the certificate of the other end is over.
#[tokio::test]
async fn slow_a_connection_ends_with_the_certificate_of_either_side() {
    let papers = Papers::new();
    for valid in [2, 4, 8, 16, 32].map(Duration::from_secs) {
        papers.issue_node(1, valid);
        let (short, long) = (serve(&papers, 1), serve(&papers, 2));
        let client = Quic::bind(loopback(), &papers.user(&[Role::Client])).unwrap();
        let expiring = papers.user_for(&[Role::Client], valid);
        let expiring = Quic::bind(loopback(), &expiring).unwrap();
        let to_short =
            within(client.dial(short.address, Expect::AnyNode, Role::Client, None)).await;
        let from_short =
            within(expiring.dial(long.address, Expect::AnyNode, Role::Client, None)).await;
        let stays = within(client.dial(long.address, Expect::AnyNode, Role::Client, None)).await;
        // a machine this slow needs a longer life
        let (Ok(to_short), Ok(from_short), Ok(stays)) = (to_short, from_short, stays) else {
            continue;
        };
        for link in [&to_short, &from_short] {
            assert_ne!(within(link.closed()).await, CloseReason::Silent);
        }
        let status = crate::house::of_kind(atoll_wire::Kind::Status);
        let late = within(to_short.call(Lane::Control, &envelope(Role::Client), &status)).await;
        assert!(matches!(late, Err(CallError::Down(_))), "{late:?}");
        assert!(within(stays.call(Lane::Control, &envelope(Role::Client), &status)).await.is_ok());
        assert!(stays.is_open(), "its papers are good for a day");
        return;
    }
    panic!("never got in");
}

/// The dialler looks at the server's certificate just as closely.
#[tokio::test]
async fn an_expired_server_is_refused() {
    let papers = Papers::new();
    papers.issue_node(1, Duration::ZERO);
    next_second().await;
    let server = serve(&papers, 1);
    refused(dial(&server, &papers.user(&[Role::Client])).await);
}

/// A certificate for opening connections cannot accept them, whatever roles it carries.
#[tokio::test]
async fn a_user_cannot_pose_as_a_server() {
    let papers = Papers::new();
    for roles in [&[Role::Client][..], &[Role::Node], &Role::ALL] {
        let server = serve_as(&papers.user(roles), 1);
        refused(dial(&server, &papers.user(&[Role::Client])).await);
    }
}

/// Whoever expects a certain node gets that one or none.
#[tokio::test]
async fn another_node_than_expected_is_refused() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let quic = Quic::bind(loopback(), &papers.user(&[Role::Client])).unwrap();
    let dial = |expect| within(quic.dial(server.address, expect, Role::Client, None));
    refused(dial(Expect::Node(NodeId(2))).await);
    refused(dial(Expect::Node(NodeId(11))).await);
    let link = dial(Expect::Node(NodeId(1))).await.unwrap();
    assert_eq!(link.node(), NodeId(1));
}

/// A hello may name the speaker's cluster. Another one is refused by name, ours and none are welcome.
#[tokio::test]
async fn another_cluster_in_the_hello_is_refused() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let link = link(&papers, &server).await;
    for (cluster, welcome) in [(None, true), (Some(CLUSTER.0), true), (Some([8; 16]), false)] {
        let hello = Request::Hello(Hello { lane: Lane::Control, node: None, cluster });
        match ask(&link, Lane::Control, &hello).await.unwrap() {
            Reply::Welcome(_) => assert!(welcome),
            Reply::Failed(failure) => {
                assert!(!welcome);
                assert_eq!(failure.code, ErrorCode::OtherCluster);
            }
            other => panic!("a hello was answered with {other:?}"),
        }
    }
}

/// A socket for dialling only does that, and finds the right family and interface by itself.
#[tokio::test]
async fn a_socket_for_dialling_dials() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let quic = Quic::for_dialling(server.address, &papers.user(&[Role::Client])).unwrap();
    let link =
        within(quic.dial(server.address, Expect::AnyNode, Role::Client, None)).await.unwrap();
    let envelope = envelope(Role::Client);
    let status = crate::house::of_kind(atoll_wire::Kind::Status);
    assert!(within(link.call(Lane::Control, &envelope, &status)).await.is_ok());
}

/// What is wrong with the files of an identity is said with the path, before any socket is opened.
#[tokio::test]
async fn unusable_files_are_named() {
    let papers = Papers::new();
    let identity = papers.node(1);
    assert!(identity.roles().contains(Role::Node) && !identity.roles().contains(Role::Client));
    assert!(identity.names(NodeId(1)) && !identity.names(NodeId(11)) && !identity.names(NodeId(2)));
    papers.user(&[Role::Client]);
    let load = |certificate: &str, key: &str| {
        let files = ["ca.pem", certificate, key].map(|name| papers.path(name));
        Identity::load(&files[0], &files[1], &files[2])
    };
    let complaint = |certificate: &str, key: &str| load(certificate, key).err().unwrap();

    assert!(
        matches!(complaint("none.pem", "n1.key"), IdentityError::Read { path, .. } if path == papers.path("none.pem"))
    );
    assert!(
        matches!(complaint("n1.pem", "none.key"), IdentityError::Read { path, .. } if path == papers.path("none.key"))
    );
    assert!(
        matches!(complaint("n1.key", "n1.key"), IdentityError::Unusable { path, .. } if path == papers.path("n1.key"))
    );

    // a key that belongs to another certificate
    let mixed = load("n1.pem", "user.key").unwrap();
    assert!(Quic::bind(loopback(), &mixed).is_err());

    // a key that others may read
    let open = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(papers.path("n1.key"), open).unwrap();
    assert!(matches!(complaint("n1.pem", "n1.key"), IdentityError::Exposed { mode: 0o640, .. }));
}

async fn dial(server: &Server, identity: &Identity) -> Result<Link, DialError> {
    let quic = Quic::bind(loopback(), identity).unwrap();
    within(quic.dial(server.address, Expect::AnyNode, Role::Client, None)).await
}

/// The reason of a refusal, which is never that nobody answered.
fn refused(dialled: Result<Link, DialError>) -> String {
    let reason = dialled.err().expect("must not get in").to_string();
    assert_ne!(reason, "no answer");
    reason
}

/// A certificate counts in whole seconds and is good for the one it ends in.
async fn next_second() {
    let second = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let issued = second();
    while second() == issued {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
