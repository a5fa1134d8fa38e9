//! QUIC without our transport: peers with good papers and bad manners.

use std::{net::SocketAddr, sync::Arc};

use atoll_ring::Epoch;
use atoll_wire::{
    ALPN, Frame, Hello, Kind, Reply, Request, Role, Welcome,
    frame::{encode_reply, encode_request, peek_length},
};
use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::house::{CLUSTER, Papers, envelope, loopback};

/// Dials with the papers of that name, or none, offering this protocol.
pub async fn dial(
    papers: &Papers,
    name: Option<&str>,
    alpn: &[u8],
    address: SocketAddr,
) -> Result<quinn::Connection, quinn::ConnectionError> {
    client(papers, name, alpn).connect(address, "node.atoll").unwrap().await
}

/// An endpoint that dials with the papers of that name, or none, offering this protocol.
pub fn client(papers: &Papers, name: Option<&str>, alpn: &[u8]) -> quinn::Endpoint {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(papers));
    let mut config = match name {
        Some(name) => {
            let (certificate, key) = pair(papers, name);
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let mut endpoint = quinn::Endpoint::client(loopback()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

/// Listens with the papers of that name.
pub fn listen(papers: &Papers, name: &str) -> quinn::Endpoint {
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots(papers)),
        provider(),
    );
    let (certificate, key) = pair(papers, name);
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config).unwrap()));
    quinn::Endpoint::server(config, loopback()).unwrap()
}

/// Accepts a connection and greets its lanes as node 1 does.
pub async fn greet(endpoint: &quinn::Endpoint) -> (quinn::Connection, Vec<Lane>) {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let mut lanes = Vec::new();
    for _ in atoll_wire::Lane::ALL {
        let mut lane = Lane::accept(&connection).await;
        lane.welcome().await;
        lanes.push(lane);
    }
    (connection, lanes)
}

/// One lane, by hand.
pub struct Lane {
    pub send: quinn::SendStream,
    receive: quinn::RecvStream,
}

impl Lane {
    pub async fn accept(connection: &quinn::Connection) -> Lane {
        Lane::of(connection.accept_bi().await.unwrap())
    }

    pub fn of((send, receive): (quinn::SendStream, quinn::RecvStream)) -> Lane {
        Lane { send, receive }
    }

    /// Greets back, as node 1 does.
    pub async fn welcome(&mut self) {
        let hello = self.read().await;
        let welcome = Welcome { node: 1, cluster: CLUSTER.0, role: Role::Node };
        self.reply(Kind::Hello, hello.id, &Reply::Welcome(welcome)).await;
    }

    pub async fn open(connection: &quinn::Connection) -> Lane {
        let (send, receive) = connection.open_bi().await.unwrap();
        Lane { send, receive }
    }

    /// The next frame.
    pub async fn read(&mut self) -> Frame {
        let mut bytes = vec![0; 8];
        self.receive.read_exact(&mut bytes).await.unwrap();
        let length = peek_length(&bytes).unwrap().unwrap();
        bytes.resize(length, 0);
        self.receive.read_exact(&mut bytes[8..]).await.unwrap();
        Frame::parse(&bytes.into()).unwrap()
    }

    /// Opens a lane and greets as a node without a number; the welcome is read.
    pub async fn greet(connection: &quinn::Connection, lane: atoll_wire::Lane) -> Lane {
        Self::greet_as(connection, Role::Node, lane).await
    }

    /// Opens a lane and greets in this role.
    pub async fn greet_as(
        connection: &quinn::Connection,
        role: Role,
        lane: atoll_wire::Lane,
    ) -> Lane {
        let mut opened = Lane::open(connection).await;
        let hello = Hello { lane, node: None, cluster: None };
        let frame = encode_request(1, &envelope(role), &Request::Hello(hello)).unwrap();
        opened.send.write_all(&frame.concat()).await.unwrap();
        assert!(matches!(opened.read().await.reply(), Ok((_, Reply::Welcome(_)))));
        opened
    }

    pub async fn reply(&mut self, kind: Kind, id: u64, reply: &Reply) {
        let bytes = encode_reply(kind, id, Epoch(5), reply).unwrap().concat();
        self.send.write_all(&bytes).await.unwrap();
    }
}

/// A frame put together by hand, without any of the checks.
pub fn frame(kind: u8, flags: u16, header: &[u8], tail: &[u8]) -> Vec<u8> {
    let length = 14 + header.len() + tail.len();
    let mut frame = (length as u32).to_le_bytes().to_vec();
    frame.extend([1, kind]);
    frame.extend(flags.to_le_bytes());
    frame.extend(77u64.to_le_bytes());
    frame.extend((header.len() as u16).to_le_bytes());
    frame.extend(header);
    frame.extend(tail);
    frame
}

/// The same bytes as an answer to this request, if they are long enough to say so.
pub fn answering(id: u64, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(place) = bytes.get_mut(8..16) {
        place.copy_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// Bytes without a meaning, the same in each run.
pub fn noise(seed: &str, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(papers: &Papers) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(papers.path("ca.pem")).unwrap()).unwrap();
    roots
}

fn pair(papers: &Papers, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_file(papers.path(&format!("{name}.pem")));
    let key = PrivateKeyDer::from_pem_file(papers.path(&format!("{name}.key")));
    (certificate.unwrap(), key.unwrap())
}
