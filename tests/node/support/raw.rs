//! A speaker that says what it likes: frames or plain bytes, on streams it opens as it likes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use posthouse::id::{LaneId, MessageId, PeerId};
use posthouse::identity::Identity;
use posthouse::protocol::{
    AgainN, CloseCode, Envelope, Frame, Header, HelloA, HelloR, MsgR, OpenN, PushMode, Role, StreamKind, decode, encode,
};
use posthouse::time::UnixMillis;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use super::relay::RELAY;
use super::{seed, who, within};

/// What stands before an Ed25519 secret in PKCS#8 (RFC 8410, section 7).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A connection without manners.
pub(crate) struct Speaker {
    _endpoint: quinn::Endpoint,
    pub(crate) connection: quinn::Connection,
}

/// One of its streams.
pub(crate) struct Stream {
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
    buffer: BytesMut,
}

/// A speaker that said HELLO, and what it was answered.
pub(crate) struct Session {
    pub(crate) speaker: Speaker,
    pub(crate) submit: Stream,
    pub(crate) notify: Stream,
    pub(crate) hello: HelloA,
}

/// R:HELLO of a client that only sends.
pub(crate) const fn hello() -> HelloR {
    HelloR {
        version: 1,
        role: Role::Peer,
        device: 0,
        sender: None,
        push: PushMode::AtOnce,
        credit_messages: 0,
        credit_bytes: 0,
        ack_timeout_ms: 30_000,
        invitation: None,
        agent: None,
    }
}

/// R:HELLO of a client that is pushed to at once.
pub(crate) fn reader() -> HelloR {
    HelloR { credit_messages: 4096, credit_bytes: 16 << 20, ..hello() }
}

/// A message as MSG:R, `n` on `lane`, after the number before it.
pub(crate) fn message(request: u64, from: u8, to: u8, lane: u64, n: u64, body: &[u8]) -> MsgR {
    let header = Header {
        sender: who(from).peer_id(),
        relay: who(RELAY).relay_id(),
        recipient: who(to).peer_id(),
        id: MessageId::new(n, &[from; 10]),
        lane: LaneId(lane),
        n,
        created: UnixMillis(1_700_000_000_000),
        ttl: Duration::from_secs(3600),
    };
    let envelope = Envelope::new(header, body).bytes().clone();
    MsgR { request, prev: n - 1, ttl_ms: 3_600_000, envelope, signature: None, home: None }
}

/// A message as a relay forwards it, signed by its sender.
pub(crate) fn forwarded(request: u64, from: &Identity, relay: u8, lane: u64, n: u64) -> MsgR {
    let plain = message(request, 1, 2, lane, n, b"x");
    let header = Envelope::parse(plain.envelope.clone()).unwrap().header();
    let header = Header { sender: from.peer_id(), relay: who(relay).relay_id(), ..header };
    let envelope = Envelope::new(header, b"x");
    let signature = Some(from.sign(&envelope.signed_bytes()));
    MsgR { envelope: envelope.bytes().clone(), signature, ..plain }
}

impl Speaker {
    /// Connects as a member of the cast, or as nobody. Of each stream it takes `window` bytes unread.
    pub(crate) async fn connect(relay: SocketAddr, as_whom: Option<u8>, window: u32) -> Self {
        Self::try_connect(relay, as_whom, window).await.unwrap()
    }

    pub(crate) async fn try_connect(
        relay: SocketAddr,
        as_whom: Option<u8>,
        window: u32,
    ) -> Result<Self, ConnectionError> {
        Self::try_connect_from("127.0.0.1:0", relay, as_whom, window).await
    }

    /// From this address of this machine.
    pub(crate) async fn try_connect_from(
        here: &str,
        relay: SocketAddr,
        as_whom: Option<u8>,
        window: u32,
    ) -> Result<Self, ConnectionError> {
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting(algorithms)));
        let mut tls = match as_whom {
            Some(number) => {
                let certificate = CertificateDer::from(who(number).certificate_der().to_vec());
                let key = PrivatePkcs8KeyDer::from([&PKCS8[..], &seed(number)].concat());
                config.with_client_auth_cert(vec![certificate], PrivateKeyDer::Pkcs8(key)).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"posthouse/1".to_vec()];
        let mut transport = quinn::TransportConfig::default();
        transport
            .stream_receive_window(VarInt::from_u32(window))
            .receive_window(VarInt::from_u32(window))
            .keep_alive_interval(Some(Duration::from_secs(5)));
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::client(here.parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(config, relay, "posthouse").unwrap();
        let connection = within("a handshake", connecting).await?;
        Ok(Self { _endpoint: endpoint, connection })
    }

    /// Opens a stream without a word.
    pub(crate) async fn stream(&self) -> Stream {
        let (send, receive) = self.connection.open_bi().await.unwrap();
        Stream { send, receive, buffer: BytesMut::new() }
    }

    /// Opens a stream of this kind.
    pub(crate) async fn open(&self, kind: StreamKind) -> Stream {
        let mut stream = self.stream().await;
        stream.say(OpenN { kind }).await;
        stream
    }

    /// Opens the submit stream and says this.
    pub(crate) async fn greet(self, hello: HelloR) -> Session {
        let mut submit = self.open(StreamKind::Submit).await;
        let hello = loop {
            submit.say(hello.clone()).await;
            match submit.hear().await {
                Some(Frame::HelloA(hello)) => break hello,
                Some(Frame::AgainN(AgainN {})) => {}
                other => panic!("{other:?} instead of A:HELLO"),
            }
        };
        let (send, receive) = within("the notify stream", self.connection.accept_bi()).await.unwrap();
        let mut notify = Stream { send, receive, buffer: BytesMut::new() };
        assert_eq!(notify.hear().await, Some(OpenN { kind: StreamKind::Notify }.into()));
        Session { speaker: self, submit, notify, hello }
    }

    /// Waits until the relay closes the connection, and says how.
    pub(crate) async fn closed(&self) -> (CloseCode, String) {
        match within("the end of the connection", self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => {
                let code = CloseCode::from_number(close.error_code.into_inner()).unwrap();
                (code, String::from_utf8_lossy(&close.reason).into_owned())
            }
            other => panic!("not closed by the relay: {other}"),
        }
    }
}

impl Session {
    /// A session of a member of the cast.
    pub(crate) async fn open(relay: SocketAddr, as_whom: u8, hello: HelloR) -> Self {
        Speaker::connect(relay, Some(as_whom), 1 << 20).await.greet(hello).await
    }

    pub(crate) async fn closed(&self) -> (CloseCode, String) {
        self.speaker.closed().await
    }
}

impl Stream {
    /// Says a frame. If the connection is over, nobody hears it.
    pub(crate) async fn say(&mut self, frame: impl Into<Frame>) {
        let mut bytes = BytesMut::new();
        encode(&frame.into(), &mut bytes);
        self.say_bytes(&bytes).await;
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.ok();
    }

    /// A frame with any type and content.
    pub(crate) async fn say_raw(&mut self, frame_type: u16, content: &[u8]) {
        let length = u32::try_from(content.len()).unwrap();
        let prefix = [&length.to_be_bytes()[..], &frame_type.to_be_bytes()].concat();
        self.say_bytes(&[&prefix, content].concat()).await;
    }

    /// The next frame; `None` once nothing more comes.
    pub(crate) async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            match within("a frame", self.receive.read_chunk(usize::MAX, true)).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// The peer id of a member of the cast.
pub(crate) fn peer(number: u8) -> PeerId {
    who(number).peer_id()
}

/// Believes every relay: what is tested is the relay's side.
#[derive(Debug)]
struct Trusting(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_schemes()
    }
}
