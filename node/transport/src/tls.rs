//! The QUIC endpoint, and every setting that differs from quinn's and rustls' defaults with the reason why.
//!
//! | setting | value | else |
//! |---|---|---|
//! | reset key and connection-id key | derived from our private key | a restarted peer is noticed after 10 to 30 s |
//! | keep-alive, idle limit | 1 s, 5 s | a vanished peer is noticed after 30 s |
//! | resumption, tickets, 0-RTT | off on both sides | expired certificates get in |
//! | socket buffers | 4 MiB | packets are lost at 256 requests in flight |
//! | initial round trip | 20 ms | a lost first packet costs a second |
//! | datagrams | off | nobody uses them |
//!
//! The certificate is not a setting of the endpoint: [`Quic::renew`] puts another in its place while it runs.

use std::{
    net::SocketAddr,
    sync::{Arc, RwLock},
    time::{Duration, SystemTime},
};

use atoll_ring::NodeId;
use atoll_wire::{ALPN, Role};
use quinn::Runtime as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{
    Handler, Identity, IdentityError, Link, LinkFaults,
    admission::Class,
    faulty_socket::FaultySocket,
    identity::{node_name, role_name},
    serve,
};

/// A QUIC endpoint with an identity: dials, and accepts if a handler is given.
#[derive(Clone)]
pub struct Quic {
    endpoint: quinn::Endpoint,
    listens: bool,
    /// Only in a node that may be broken on purpose.
    faults: Option<Arc<LinkFaults>>,
    authority: CertificateDer<'static>,
    dials_as: Arc<RwLock<DialsAs>>,
}

/// What the next dial shows, and when that expires.
struct DialsAs {
    config: quinn::ClientConfig,
    expires: SystemTime,
}

/// Whom we expect at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Any node of the cluster: a seed.
    AnyNode,
    /// This node and no other.
    Node(NodeId),
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// The address cannot be dialled at all.
    #[error("cannot dial: {0}")]
    Address(String),
    /// Nobody answered, or the handshake failed.
    #[error("{0}")]
    Handshake(String),
    /// The connection stood, but the hello was refused.
    #[error("refused: {0}")]
    Refused(String),
}

/// How long a connection may be silent before it counts as dead.
pub const IDLE_LIMIT: Duration = Duration::from_secs(5);

/// How long a dial may take, hello included.
pub const DIAL_LIMIT: Duration = Duration::from_secs(4);

const SOCKET_BUFFER_BYTES: usize = 4 << 20;

impl Quic {
    /// Opens a socket. Must be called inside a runtime.
    ///
    /// # Errors
    /// The address is taken, or the identity does not fit together.
    pub fn bind(address: SocketAddr, identity: &Identity) -> Result<Self, std::io::Error> {
        Self::open(address, identity, true, None)
    }

    /// The same for a node whose links may be broken on purpose.
    ///
    /// # Errors
    /// As [`Quic::bind`].
    pub fn bind_with_faults(
        address: SocketAddr,
        identity: &Identity,
        faults: Arc<LinkFaults>,
    ) -> Result<Self, std::io::Error> {
        Self::open(address, identity, true, Some(faults))
    }

    fn open(
        address: SocketAddr,
        identity: &Identity,
        listens: bool,
        faults: Option<Arc<LinkFaults>>,
    ) -> Result<Self, std::io::Error> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.bind(&address.into())?;
        // the system caps silently and reports double of what it gives
        if socket.recv_buffer_size()? < SOCKET_BUFFER_BYTES {
            tracing::warn!(
                bytes = socket.recv_buffer_size()?,
                "small socket buffer: raise net.core.rmem_max to 4 MiB or bursts lose packets"
            );
        }
        let (server, config) = configs(identity).map_err(std::io::Error::other)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let mut socket = runtime.wrap_udp_socket(socket.into())?;
        if let Some(faults) = &faults {
            socket = Arc::new(FaultySocket::new(socket, faults.clone()));
        }
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            endpoint_config(identity),
            listens.then_some(server),
            socket,
            runtime,
        )?;
        let dials_as = DialsAs { config, expires: identity.expires() };
        Ok(Quic {
            endpoint,
            listens,
            faults,
            authority: identity.authority.clone(),
            dials_as: Arc::new(RwLock::new(dials_as)),
        })
    }

    /// Shows another identity from the next handshake on, in both directions, and in all clones. Connections that stand
    /// stay as they are, at most until the certificate shown in them expires.
    ///
    /// The reset key and the connection ids stay those of the first identity: peers hold promises made with them.
    ///
    /// # Errors
    /// The new identity would not be accepted by others, or is of another authority. Nothing has changed then.
    pub fn renew(&self, identity: &Identity) -> Result<(), IdentityError> {
        let files = identity.files();
        if identity.authority != self.authority {
            let reason = "it is not the authority this process was started with; another one takes a restart";
            return Err(IdentityError::Unusable {
                path: files.authority.clone(),
                what: "authority",
                reason: reason.into(),
            });
        }
        identity.check(SystemTime::now())?;
        let (server, config) = configs(identity).map_err(|error| IdentityError::Unusable {
            path: files.certificate.clone(),
            what: "certificate",
            reason: error.to_string(),
        })?;
        if self.listens {
            self.endpoint.set_server_config(Some(server));
        }
        let dials_as = DialsAs { config, expires: identity.expires() };
        *self.dials_as.write().expect("no panic holds it") = dials_as;
        Ok(())
    }

    /// Opens a socket for dialling only: on the loopback if the target is there, else on any address.
    ///
    /// # Errors
    /// As [`Quic::bind`].
    pub fn for_dialling(target: SocketAddr, identity: &Identity) -> Result<Self, std::io::Error> {
        let ip: std::net::IpAddr = match (target.ip().is_loopback(), target.is_ipv4()) {
            (true, true) => std::net::Ipv4Addr::LOCALHOST.into(),
            (true, false) => std::net::Ipv6Addr::LOCALHOST.into(),
            (false, true) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            (false, false) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::open(SocketAddr::new(ip, 0), identity, false, None)
    }

    /// These are the nodes of the cluster, and where they are: the faults of links are about them.
    pub(crate) fn follow(&self, members: &[(NodeId, SocketAddr)]) {
        if let Some(faults) = &self.faults {
            faults.follow(members);
        }
    }

    /// Where we listen.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> Result<SocketAddr, std::io::Error> {
        self.endpoint.local_addr()
    }

    /// Connections that QUIC holds at the moment, both ways, with those that are not finished yet or have just ended.
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// Accepts connections until [`Quic::close`], giving each request to the handler.
    pub async fn serve(&self, handler: Arc<dyn Handler>) {
        serve::accept(self.endpoint.clone(), handler).await;
    }

    /// Connects, checks who is there, and opens the lanes. `me` is the node that dials, if one does.
    ///
    /// A link that is returned has been greeted by the other side: before that, a refused certificate looks like a
    /// connection that stands (TLS 1.3 answers the client before it has judged it).
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn dial(
        &self,
        address: SocketAddr,
        expect: Expect,
        role: Role,
        me: Option<NodeId>,
    ) -> Result<Link, DialError> {
        let name = match expect {
            Expect::AnyNode => role_name(Role::Node),
            Expect::Node(node) => node_name(node),
        };
        let (config, expires) = {
            let dials_as = self.dials_as.read().expect("no panic holds it");
            (dials_as.config.clone(), dials_as.expires)
        };
        let dial = async {
            let connection = self
                .endpoint
                .connect_with(config, address, &name)
                .map_err(|e| DialError::Address(e.to_string()))?
                .await
                .map_err(|e| DialError::Handshake(e.to_string()))?;
            Link::open(connection, role, me, expires).await
        };
        tokio::time::timeout(DIAL_LIMIT, dial)
            .await
            .unwrap_or_else(|_| Err(DialError::Handshake("no answer".into())))
    }

    /// Says goodbye to all peers, and waits at most so long until they have heard it. Without a moment of patience the
    /// goodbye may never leave, and peers notice only by silence.
    pub async fn close(&self, patience: Duration) {
        self.endpoint.close(0u32.into(), b"stopping");
        let _ = tokio::time::timeout(patience, self.endpoint.wait_idle()).await;
    }
}

/// blake3 as the MAC of stateless resets.
struct ResetKey([u8; 32]);

impl quinn::crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        let signature: [u8; 32] = signature.try_into().map_err(|_| quinn::crypto::CryptoError)?;
        // blake3::Hash compares in constant time
        if blake3::keyed_hash(&self.0, data) == signature {
            Ok(())
        } else {
            Err(quinn::crypto::CryptoError)
        }
    }
}

/// Both keys come from the private key, so that a restarted process can reset connections of its former life: it must
/// recognise their ids (else it drops the packets unseen) and sign what the peer was promised.
fn endpoint_config(identity: &Identity) -> quinn::EndpointConfig {
    let secret = identity.key.secret_der();
    let reset = ResetKey(blake3::derive_key("atoll 2026 quic reset key", secret));
    let ids = blake3::derive_key("atoll 2026 quic connection id key", secret);
    let ids = u64::from_le_bytes(ids[..8].try_into().expect("eight bytes"));
    let mut config = quinn::EndpointConfig::new(Arc::new(reset));
    config.cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(ids)));
    config
}

fn configs(
    identity: &Identity,
) -> Result<(quinn::ServerConfig, quinn::ClientConfig), Box<dyn std::error::Error + Send + Sync>> {
    let key = || -> PrivateKeyDer<'static> { identity.key.clone_key() };
    let chain = || vec![identity.certificate.clone()];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.authority.clone())?;
    let roots = Arc::new(roots);

    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        roots.clone(),
        provider.clone(),
    )
    .build()?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(), key())?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    let mut server =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
    // what a client may have; a node is given more when its certificate has been seen
    let mut transport = transport_config();
    transport
        .receive_window(Class::Client.receive_window_bytes().into())
        .send_window(Class::Client.send_window_bytes());
    server.transport_config(Arc::new(transport));
    server.max_incoming(256).incoming_buffer_size_total(4 << 20);

    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain(), key())?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_early_data = false;
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
    client.transport_config(Arc::new(transport_config()));
    Ok((server, client))
}

fn transport_config() -> quinn::TransportConfig {
    let mut config = quinn::TransportConfig::default();
    config
        .keep_alive_interval(Some(Duration::from_secs(1)))
        .max_idle_timeout(Some(IDLE_LIMIT.try_into().expect("5 s fits")))
        .initial_rtt(Duration::from_millis(20))
        .stream_receive_window((2u32 << 20).into())
        .receive_window(Class::Node.receive_window_bytes().into())
        .send_window(Class::Node.send_window_bytes())
        .max_concurrent_bidi_streams(8u32.into()) // the lanes
        .max_concurrent_uni_streams(64u32.into()) // frames too long for a lane
        .datagram_receive_buffer_size(None);
    config
}
