//! Papers that are nearly right, shown as a client and as a server, on a first visit and right after a good one.
//!
//! The forger has a working certificate too, keeps one endpoint and one TLS configuration for all of it, remembers
//! sessions and asks for early data. Whatever TLS could carry over from the good visit must not let the bad one in.

use std::sync::{Arc, Mutex};

use atoll_ring::NodeId;
use atoll_transport::{DialError, Expect, Identity, Quic};
use atoll_wire::{ALPN, ErrorCode, Hello, Kind, Lane, Reply, Request, Role, frame::encode_request};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use time::{Duration, OffsetDateTime};

use crate::{
    house::{Server, envelope, loopback, of_kind, serve_as, within},
    raw,
};

/// Each forgery with its name and what a receiver that looks at it should do.
fn forgeries(ca: &Ca) -> Vec<(&'static str, Shown)> {
    let now = OffsetDateTime::now_utc();
    let node = || leaf(&["node.atoll", "n1.node.atoll"], &BOTH);
    let mut expired = node();
    (expired.not_before, expired.not_after) = (now - Duration::days(2), now - Duration::days(1));
    let mut early = node();
    (early.not_before, early.not_after) = (now + Duration::days(1), now + Duration::days(2));
    let (other, namesake) = (Ca::named("somebody else"), Ca::named(NAME));
    let itself = {
        let key = KeyPair::generate().unwrap();
        let signed = node().self_signed(&key).unwrap();
        shown(vec![signed.der().clone()], &key)
    };
    let by_a_leaf = {
        // the holder of a good certificate signs another with it
        let key = KeyPair::generate().unwrap();
        let params = node();
        let middle = params.signed_by(&key, &ca.issuer).unwrap();
        let below = KeyPair::generate().unwrap();
        let signed = node().signed_by(&below, &Issuer::new(params, &key)).unwrap();
        shown(vec![signed.der().clone(), middle.der().clone()], &below)
    };
    let by_a_ca_of_a_leaf = {
        // the same, and the holder calls itself an authority, which the real one never signed
        let key = KeyPair::generate().unwrap();
        let mut params = node();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let middle = params.self_signed(&key).unwrap();
        let below = KeyPair::generate().unwrap();
        let signed = node().signed_by(&below, &Issuer::new(params, &key)).unwrap();
        shown(vec![signed.der().clone(), middle.der().clone()], &below)
    };
    let stolen = {
        // another's certificate, without its key
        let good = ca.sign(node());
        shown(good.cert.clone(), &KeyPair::generate().unwrap())
    };
    vec![
        ("expired", ca.sign(expired)),
        ("not yet valid", ca.sign(early)),
        ("of another authority", other.sign(node())),
        ("of an authority of the same name with another key", namesake.sign(node())),
        ("signed by itself", itself),
        ("signed by a good leaf", by_a_leaf),
        ("signed by a leaf that calls itself an authority", by_a_ca_of_a_leaf),
        ("somebody else's, without the key", stolen),
    ]
}

/// As a client: each is turned away on a fresh endpoint and on one that was welcome a moment ago, also with early data.
/// Not one request of theirs reaches the node; the good certificate is welcome between them all.
#[tokio::test]
async fn no_forgery_gets_in() {
    let ca = Ca::named(NAME);
    let server = ca.serve();
    let good = ca.sign(leaf(&["client.atoll"], &[Usage::ClientAuth]));
    let mut bad = forgeries(&ca);
    let only_server = leaf(&["node.atoll", "n1.node.atoll"], &[Usage::ServerAuth]);
    bad.push(("for accepting connections only", ca.sign(only_server)));
    for (what, forged) in bad {
        for welcome_before in [false, true] {
            let forger = Forger::new(&ca);
            if welcome_before {
                forger.show(Some(good.clone()));
                welcome(&forger, &server).await;
            }
            forger.show(Some(forged.clone()));
            turned_away(&forger, &server, what).await;
            forger.show(None);
            turned_away(&forger, &server, "none at all").await;
            forger.show(Some(good.clone()));
            welcome(&forger, &server).await;
        }
    }
    assert!(server.host.seen().is_empty(), "a hello is all that was ever said");
}

/// As a server: the dialler finds each out, first and after a good connection to the same address.
#[tokio::test]
async fn no_forgery_is_believed() {
    let ca = Ca::named(NAME);
    let good = ca.sign(leaf(&["node.atoll", "n1.node.atoll"], &BOTH));
    let mut bad = forgeries(&ca);
    bad.extend([
        ("a client's", ca.sign(leaf(&["client.atoll"], &[Usage::ClientAuth]))),
        ("a client's that may accept", ca.sign(leaf(&["client.atoll"], &BOTH))),
        ("another node's", ca.sign(leaf(&["node.atoll", "n2.node.atoll"], &BOTH))),
        ("for opening connections only", {
            ca.sign(leaf(&["node.atoll", "n1.node.atoll"], &[Usage::ClientAuth]))
        }),
    ]);
    let papers = Show::default();
    let endpoint = ca.listen(&papers);
    let address = endpoint.local_addr().unwrap();
    tokio::spawn(accept_everybody(endpoint));
    let quic = Quic::bind(loopback(), &ca.identity("client.atoll", &[Usage::ClientAuth])).unwrap();
    let dial = || within(quic.dial(address, Expect::Node(NodeId(1)), Role::Client, None));
    for (what, forged) in bad {
        papers.put(Some(forged));
        for _ in 0..2 {
            match dial().await.err() {
                Some(DialError::Handshake(_)) => {}
                other => panic!("a certificate {what}: {other:?}"),
            }
            // a good visit, so that the second round comes after one
            let bad = papers.put(Some(good.clone()));
            drop(dial().await.unwrap());
            papers.put(bad);
        }
    }
}

/// A certificate that the authority did sign, for somebody else or for nothing: the handshake succeeds, and no hello does.
#[tokio::test]
async fn a_good_certificate_of_somebody_else_gets_no_word_in() {
    let ca = Ca::named(NAME);
    let server = ca.serve();
    let cases = [
        ("n2's that says it is n1", vec!["node.atoll", "n2.node.atoll"], Role::Node, Some(1)),
        ("a client's as a node", vec!["client.atoll"], Role::Node, None),
        ("an operator's as a client", vec!["operator.atoll"], Role::Client, None),
        ("without a role", vec!["web.example"], Role::Client, None),
        ("without a name", vec![], Role::Client, None),
        ("n1's number and no role", vec!["n1.node.atoll"], Role::Node, Some(1)),
    ];
    for (what, names, role, node) in cases {
        let forger = Forger::new(&ca);
        forger.show(Some(ca.sign(leaf(&names, &BOTH))));
        let connection = forger.connect(&server).await.unwrap();
        let mut lane = raw::Lane::open(&connection).await;
        let hello = Request::Hello(Hello { lane: Lane::Request, node, cluster: None });
        for request in [hello, of_kind(Kind::Get), of_kind(Kind::Replicate)] {
            let frame = encode_request(1, &envelope(role), &request).unwrap().concat();
            lane.send.write_all(&frame).await.unwrap();
            let Ok((_, Reply::Failed(failure))) = within(lane.read()).await.reply() else {
                panic!("a certificate {what} was answered");
            };
            assert_eq!(failure.code, ErrorCode::NotPermitted, "{what}");
        }
    }
    assert!(server.host.seen().is_empty());
}

async fn welcome(forger: &Forger, server: &Server) {
    let connection = forger.connect(server).await.unwrap();
    let mut lane = raw::Lane::open(&connection).await;
    lane.send.write_all(&hello()).await.unwrap();
    assert!(matches!(within(lane.read()).await.reply(), Ok((_, Reply::Welcome(_)))));
    connection.close(0u32.into(), b"");
}

async fn turned_away(forger: &Forger, server: &Server, what: &str) {
    // TLS 1.3 lets the client believe it is in until the server has looked at its certificate
    let Ok(connection) = forger.connect(server).await else { return };
    if let Ok((mut send, _receive)) = connection.open_bi().await {
        let _ = send.write_all(&hello()).await;
        let end = within(connection.closed()).await;
        assert!(matches!(end, quinn::ConnectionError::ConnectionClosed(_)), "{what}: {end}");
    }
}

fn hello() -> Vec<u8> {
    let hello = Request::Hello(Hello { lane: Lane::Request, node: None, cluster: None });
    encode_request(1, &envelope(Role::Client), &hello).unwrap().concat()
}

/// Greets everybody as node 1 does.
async fn accept_everybody(endpoint: quinn::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let mut lanes = Vec::new();
            while let Ok(stream) = connection.accept_bi().await {
                let mut lane = raw::Lane::of(stream);
                lane.welcome().await;
                lanes.push(lane);
            }
        });
    }
}

/// An authority whose key is at hand, so that it signs what no real one would.
struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

const NAME: &str = "atoll authority of test";
const BOTH: [Usage; 2] = [Usage::ServerAuth, Usage::ClientAuth];

type Shown = Arc<CertifiedKey>;

impl Ca {
    fn named(name: &str) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Ca { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    fn sign(&self, params: CertificateParams) -> Shown {
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        shown(vec![signed.der().clone()], &key)
    }

    /// An identity as our own code loads it.
    fn identity(&self, names: &str, usages: &[Usage]) -> Identity {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let [ca, certificate, key] = ["ca.pem", "it.pem", "it.key"].map(|n| folder.path().join(n));
        let pair = KeyPair::generate().unwrap();
        let names: Vec<&str> = names.split(' ').collect();
        let signed = leaf(&names, usages).signed_by(&pair, &self.issuer).unwrap();
        std::fs::write(&ca, self.issuer.pem()).unwrap();
        std::fs::write(&certificate, signed.pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        Identity::load(&ca, &certificate, &key).unwrap()
    }

    fn serve(&self) -> Server {
        serve_as(&self.identity("node.atoll n1.node.atoll", &BOTH), 1)
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A server as rustls makes it by default: it gives tickets and resumes sessions.
    fn listen(&self, papers: &Show) -> quinn::Endpoint {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(papers.clone()));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = u32::MAX;
        let config = QuicServerConfig::try_from(config).unwrap();
        quinn::Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(config)), loopback())
            .unwrap()
    }
}

fn leaf(names: &[&str], usages: &[Usage]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(1);
    params
}

fn shown(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Shown {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    Arc::new(CertifiedKey::new(chain, key))
}

/// What is shown at the moment.
#[derive(Clone, Debug, Default)]
struct Show(Arc<Mutex<Option<Shown>>>);

impl Show {
    fn put(&self, papers: Option<Shown>) -> Option<Shown> {
        std::mem::replace(&mut *self.0.lock().unwrap(), papers)
    }

    fn now(&self) -> Option<Shown> {
        self.0.lock().unwrap().clone()
    }
}

impl ResolvesClientCert for Show {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Shown> {
        self.now()
    }

    fn has_certs(&self) -> bool {
        self.now().is_some()
    }
}

impl ResolvesServerCert for Show {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Shown> {
        self.now()
    }
}

/// A client that remembers sessions and changes its papers.
struct Forger {
    papers: Show,
    endpoint: quinn::Endpoint,
}

impl Forger {
    fn new(ca: &Ca) -> Forger {
        let papers = Show::default();
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(ca.roots())
            .with_client_cert_resolver(Arc::new(papers.clone()));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_early_data = true;
        let config = QuicClientConfig::try_from(config).unwrap();
        let mut endpoint = quinn::Endpoint::client(loopback()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
        Forger { papers, endpoint }
    }

    fn show(&self, papers: Option<Shown>) {
        self.papers.put(papers);
    }

    /// Connects, with early data if there is anything to resume: there never is.
    async fn connect(&self, server: &Server) -> Result<quinn::Connection, quinn::ConnectionError> {
        let connecting = self.endpoint.connect(server.address, "node.atoll").unwrap();
        match connecting.into_0rtt() {
            Ok(_) => panic!("a session was there to resume"),
            Err(connecting) => within(connecting).await,
        }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
