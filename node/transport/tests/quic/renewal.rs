//! A certificate that is replaced while its node runs, and what becomes of the connections in which the old one was shown.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use atoll_ring::NodeId;
use atoll_transport::{
    CloseReason, Expect, Identity, Link, Peers, Quic, Renewal,
    renewal::{Looked, Refusal},
};
use atoll_wire::{ALPN, Lane, Role};

use crate::{
    house::{
        AT_THE_GATE, DAY, Papers, Server, ask, fetch, link, loopback, serve, serve_as,
        still_served, until, within,
    },
    raw,
};

/// The old link lives, the new one sees the new certificate: with the same key, and with another one.
#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_handshake_on() {
    for new_key in [false, true] {
        let papers = Papers::new();
        let server = serve(&papers, 1);
        let mut renewal = renewal_of(&papers, &server);
        let state = renewal.state();
        let old = link(&papers, &server).await;
        assert!(matches!(renewal.look(), Looked::Unchanged));

        let key_before = std::fs::read(papers.path("n1.key")).unwrap();
        let expires = papers.renew("n1", 3 * DAY, new_key);
        assert_eq!(std::fs::read(papers.path("n1.key")).unwrap() != key_before, new_key);
        assert!(matches!(renewal.look(), Looked::Renewed(_)));
        assert_eq!(state.expires_ms() / 1000, seconds(expires));
        assert!(matches!(renewal.look(), Looked::Unchanged));

        let new = link_of(&papers, &server, 3 * DAY).await;
        assert_eq!(seconds(new.expires()), seconds(expires));
        assert!(old.expires() < new.expires());
        still_served(&old).await;
        still_served(&new).await;
    }
}

/// The other direction: what a node shows when it dials changes as well, in every clone of its endpoint.
#[tokio::test]
async fn a_renewed_node_dials_with_the_new_certificate() {
    let papers = Papers::new();
    let server = serve_lasting(&papers, 1, 9 * DAY);
    let quic = Quic::bind(loopback(), &papers.node(2)).unwrap();
    let dial = || within(quic.dial(server.address, Expect::AnyNode, Role::Node, Some(NodeId(2))));
    let before = dial().await.unwrap();
    papers.renew("n2", 3 * DAY, false);
    quic.clone().renew(&papers.load("n2")).unwrap();
    let after = dial().await.unwrap();
    assert!(before.expires() < after.expires());
    still_served(&before).await;
    still_served(&after).await;
}

/// Files that are of no use change nothing, and the node says what is wrong with them. When they are mended they are
/// taken.
#[tokio::test]
async fn a_useless_certificate_is_refused_by_name() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    let mut renewal = renewal_of(&papers, &server);
    let state = renewal.state();
    let expires_ms = state.expires_ms();
    let good = ["n1.pem", "n1.key"].map(|name| std::fs::read(papers.path(name)).unwrap());
    let stranger = Papers::new();
    stranger.node(1);
    papers.node(2);
    papers.issue_node(3, Duration::ZERO);
    next_second().await;
    let put = |name: &str, from: std::path::PathBuf| {
        std::fs::copy(from, papers.path(name)).unwrap();
    };
    let write = |name: &str, bytes: &[u8]| std::fs::write(papers.path(name), bytes).unwrap();

    type Spoil<'a> = Box<dyn Fn() + 'a>;
    let cases: [(&str, Spoil<'_>); 8] = [
        ("no usable certificate", Box::new(|| write("n1.pem", b"garbage"))),
        ("no usable certificate", Box::new(|| write("n1.pem", &good[0][..good[0].len() / 2]))),
        ("no usable private key", Box::new(|| write("n1.key", b"garbage"))),
        ("is not the key of", Box::new(|| put("n1.key", papers.path("n2.key")))),
        (
            "not that of n1",
            Box::new(|| {
                put("n1.pem", papers.path("n2.pem"));
                put("n1.key", papers.path("n2.key"));
            }),
        ),
        (
            "was not signed by",
            Box::new(|| {
                put("n1.pem", stranger.path("n1.pem"));
                put("n1.key", stranger.path("n1.key"));
            }),
        ),
        ("cannot read", Box::new(|| std::fs::remove_file(papers.path("n1.pem")).unwrap())),
        (
            "chmod 600",
            Box::new(|| {
                let open = std::fs::Permissions::from_mode(0o644);
                std::fs::set_permissions(papers.path("n1.key"), open).unwrap();
            }),
        ),
    ];
    for (word, spoil) in cases {
        spoil();
        let looked = renewal.look();
        assert!(matches!(looked, Looked::Refused(_)), "{word}: {looked:?}");
        assert!(state.problem().contains(word), "{:?} does not say {word}", state.problem());
        assert!(matches!(renewal.look(), Looked::Unchanged), "{word}: said once");
        assert!(state.problem().contains(word), "the problem stays until it is mended");
        assert_eq!(state.expires_ms(), expires_ms);
        still_served(&link(&papers, &server).await).await;

        write("n1.pem", &good[0]);
        write("n1.key", &good[1]);
        let closed = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(papers.path("n1.key"), closed).unwrap();
        assert!(matches!(renewal.look(), Looked::Unchanged), "{word}: mended");
        assert_eq!(state.problem(), "");
    }

    put("n1.pem", papers.path("n3.pem"));
    put("n1.key", papers.path("n3.key"));
    let Looked::Refused(refusal) = renewal.look() else { panic!("n3 is not n1") };
    assert!(matches!(refusal, Refusal::OtherNode(NodeId(1))));
}

/// A node that was started with, or has come to, an expired certificate needs no restart either.
#[tokio::test]
async fn a_node_is_renewed_after_its_certificate_has_expired() {
    let papers = Papers::new();
    papers.issue_node(1, Duration::ZERO);
    next_second().await;
    let server = serve(&papers, 1);
    let mut renewal = renewal_of(&papers, &server);
    assert!(renewal.state().problem().contains("expired"), "{:?}", renewal.state().problem());
    let client = papers.user(&[Role::Client]);
    let quic = Quic::bind(loopback(), &client).unwrap();
    let dial = || within(quic.dial(server.address, Expect::AnyNode, Role::Client, None));
    assert!(dial().await.is_err());

    // an expired one is not taken either
    papers.renew("n1", Duration::ZERO, false);
    next_second().await;
    assert!(!matches!(renewal.look(), Looked::Renewed(_)));
    assert!(renewal.state().problem().contains("expired"), "{:?}", renewal.state().problem());
    assert!(dial().await.is_err());

    papers.renew("n1", DAY, false);
    assert!(matches!(renewal.look(), Looked::Renewed(_)));
    assert_eq!(renewal.state().problem(), "");
    assert!(dial().await.is_ok());
}

/// Another authority is no renewal: the others would still trust the old one.
#[tokio::test]
async fn another_authority_takes_a_restart() {
    let (papers, others) = (Papers::new(), Papers::new());
    let server = serve(&papers, 1);
    let error = server.quic.renew(&others.node(1)).unwrap_err();
    assert!(error.to_string().contains("restart"), "{error}");
    still_served(&link(&papers, &server).await).await;
}

/// A connection outlives its handshake. When the certificate shown in it expires it ends, whoever's it was, although both
/// sides keep it alive; and the reason says so.
#[tokio::test]
async fn slow_a_connection_ends_with_its_certificate() {
    // a client's, judged by the server, and a server's, judged by the client
    for (client, server) in [(SOON, DAY), (DAY, SOON)] {
        let papers = Papers::new();
        let server = serve_lasting(&papers, 1, server);
        let quic = Quic::bind(loopback(), &papers.user_for(&[Role::Client], client)).unwrap();
        let dial = quic.dial(server.address, Expect::AnyNode, Role::Client, None);
        let link = within(dial).await.expect("a machine that takes this long is of no use");
        let expires = link.expires();
        assert_eq!(within(link.closed()).await, CloseReason::Expired);
        assert!(SystemTime::now() > expires);
    }
}

/// The server does not rely on the other side for that: a client that would stay is closed out, and told why.
#[tokio::test]
async fn slow_a_guest_who_stays_is_closed_out() {
    let papers = Papers::new();
    let server = serve(&papers, 1);
    papers.user_for(&[Role::Client], SOON);
    let guest = raw::dial(&papers, Some("user"), ALPN, server.address);
    let guest = within(guest).await.expect("a machine that takes this long is of no use");
    let _lane = raw::Lane::greet_as(&guest, Role::Client, Lane::Control).await; // who says nothing is sent away sooner
    match within(guest.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            assert_eq!(&close.reason[..], b"certificate expired");
        }
        other => panic!("{other}"),
    }
}

/// A certificate that is replaced between the start of the process and the first look is not overlooked.
#[tokio::test]
async fn a_renewal_during_the_start_is_taken() {
    let papers = Papers::new();
    let loaded = papers.node(1);
    let server = serve_as(&loaded, 1);
    papers.renew("n1", 3 * DAY, false);
    let mut renewal = Renewal::new(server.quic.clone(), &loaded, NodeId(1));
    assert!(matches!(renewal.look(), Looked::Renewed(_)));
}

/// Whoever keeps connections up does not wait for that end. When either side is renewed, a new link takes the place of the
/// old one in time, and a request that waits on the old one is still answered.
#[tokio::test]
async fn slow_a_link_is_replaced_before_its_certificate_expires() {
    let papers = Papers::new();
    let server = serve_lasting(&papers, 1, Duration::from_secs(16));
    let mut renewal = renewal_of(&papers, &server);
    let quic = Quic::bind(loopback(), &papers.node(2)).unwrap();
    let peers = Peers::new(quic, Role::Node, Some(NodeId(2)));
    peers.set(&[(NodeId(1), server.address)]);
    assert_eq!(within(peers.first_up(&[NodeId(1)])).await, [NodeId(1)]);
    let old = peers.link(NodeId(1)).unwrap();
    let held = old.clone();
    let waiting = tokio::spawn(async move { ask(&held, Lane::Request, &fetch(AT_THE_GATE)).await });
    until("the request is in work", || server.host.in_work() == 1).await;

    papers.renew("n1", DAY, false);
    assert!(matches!(renewal.look(), Looked::Renewed(_)));
    until("there is a new link", || {
        peers.link(NodeId(1)).is_ok_and(|link| !Arc::ptr_eq(&link, &old))
    })
    .await;
    let new = peers.link(NodeId(1)).unwrap();
    assert!(new.expires() > old.expires());
    server.host.gate.add_permits(1);
    assert!(within(waiting).await.unwrap().is_ok(), "nothing is lost by a renewal");
    still_served(&new).await;
}

/// A few seconds: enough to get in, and short enough to wait for.
const SOON: Duration = Duration::from_secs(4);

fn renewal_of(papers: &Papers, server: &Server) -> Renewal {
    Renewal::new(server.quic.clone(), &papers.load("n1"), NodeId(1))
}

fn serve_lasting(papers: &Papers, id: u32, valid: Duration) -> Server {
    papers.issue_node(id, valid);
    serve(papers, id)
}

async fn link_of(papers: &Papers, server: &Server, valid: Duration) -> Link {
    let identity: Identity = papers.user_for(&[Role::Node], 2 * valid);
    let quic = Quic::bind(loopback(), &identity).unwrap();
    within(quic.dial(server.address, Expect::AnyNode, Role::Node, None)).await.unwrap()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A certificate counts in whole seconds and is good for the one it ends in.
async fn next_second() {
    let issued = seconds(SystemTime::now());
    while seconds(SystemTime::now()) == issued {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
