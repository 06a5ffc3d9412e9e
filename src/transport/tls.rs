//! Who is at the other end: certificates are checked by their Ed25519 key alone, never by name, date or issuer.
//!
//! A certificate is public, so showing one proves nothing: both verifiers check the signature that the other
//! side makes over the handshake with the key in it (RFC 8446, section 4.4.3). TLS 1.3 only, no resumption, no
//! 0-RTT: each connection proves its keys anew.

use std::sync::{Arc, Mutex, PoisonError};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme};

use super::config::Determinism;
use super::error::ConnectError;
use crate::id::RelayId;
use crate::identity::{Identity, key_of_certificate};
use crate::protocol::limit::ALPN;

/// The name sent as SNI: TLS wants one. Nobody reads it.
pub(super) const SERVER_NAME: &str = "posthouse";

fn not_ours() -> Error {
    CertificateError::BadEncoding.into()
}

/// Checks the signature over the handshake; the only scheme is Ed25519.
fn check_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    verify_tls13_signature(message, certificate, signature, algorithms)
}

/// What the client's verifier found wrong, kept because TLS errors cannot carry it.
#[derive(Debug, Default)]
pub(super) struct Finding(Mutex<Option<Found>>);

#[derive(Debug, Clone, Copy)]
enum Found {
    OtherRelay(RelayId),
    BadSignature,
}

impl Finding {
    fn set(&self, found: Found) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    }

    /// The error that this finding is, if there is one.
    pub(super) fn error(&self, expected: RelayId) -> Option<ConnectError> {
        Some(match (*self.0.lock().unwrap_or_else(PoisonError::into_inner))? {
            Found::OtherRelay(found) => ConnectError::WrongRelay { expected, found },
            Found::BadSignature => ConnectError::BadSignature,
        })
    }
}

/// The client's view: the relay must hold the key that its address names.
#[derive(Debug)]
struct PinnedRelay {
    relay: RelayId,
    finding: Arc<Finding>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedRelay {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = RelayId::from_bytes(key_of_certificate(end_entity).ok_or_else(not_ours)?);
        if found != self.relay {
            self.finding.set(Found::OtherRelay(found));
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, certificate, signature, &self.algorithms)
            .inspect_err(|_| self.finding.set(Found::BadSignature))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// The relay's view: any key will do if it is proved. Without a certificate the handshake succeeds, and the
/// session is refused later with a code that says why.
#[derive(Debug)]
struct AnyPeer {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyPeer {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        key_of_certificate(end_entity).map(|_| ClientCertVerified::assertion()).ok_or_else(not_ours)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

fn provider(determinism: Option<&Determinism>) -> Arc<CryptoProvider> {
    determinism.map_or_else(|| Arc::new(rustls::crypto::ring::default_provider()), |given| given.provider.clone())
}

/// The certificate of an identity with the key that signs for it.
pub(super) fn certified_key(identity: &Identity, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    let key = provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(identity.key_der()).into())?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(identity.certificate_der().to_vec())], key)))
}

/// A QUIC configuration needs the cipher suite of QUIC's first packets; every provider of ours has it.
fn no_initial_suite(error: impl std::fmt::Display) -> Error {
    Error::General(error.to_string())
}

/// How a relay shakes hands.
pub(super) fn relay(identity: &Identity, determinism: Option<&Determinism>) -> Result<QuicServerConfig, Error> {
    let provider = provider(determinism);
    relay_with(certified_key(identity, &provider)?, provider, determinism)
}

pub(super) fn relay_with(
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
    determinism: Option<&Determinism>,
) -> Result<QuicServerConfig, Error> {
    let verifier = AnyPeer { algorithms: provider.signature_verification_algorithms };
    let mut config = match determinism {
        Some(given) => rustls::ServerConfig::builder_with_details(provider, given.time_provider()),
        None => rustls::ServerConfig::builder_with_provider(provider),
    }
    .with_protocol_versions(&[&rustls::version::TLS13])?
    .with_client_cert_verifier(Arc::new(verifier))
    .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(no_initial_suite)
}

/// What a client shows and how it checks a relay; one for all its connections.
#[derive(Debug, Clone)]
pub(super) struct ClientTls {
    provider: Arc<CryptoProvider>,
    determinism: Option<Determinism>,
    key: Option<Arc<CertifiedKey>>,
}

impl ClientTls {
    pub(super) fn new(identity: &Identity, determinism: Option<&Determinism>) -> Result<Self, Error> {
        let provider = provider(determinism);
        let key = Some(certified_key(identity, &provider)?);
        Ok(Self { provider, determinism: determinism.cloned(), key })
    }

    /// A client that shows this certificate and signs with this key, or shows none.
    #[cfg(test)]
    pub(super) fn showing(key: Option<Arc<CertifiedKey>>) -> Self {
        Self { provider: provider(None), determinism: None, key }
    }

    /// How to shake hands with this relay, and where to look if that fails.
    pub(super) fn towards(&self, relay: RelayId) -> Result<(QuicClientConfig, Arc<Finding>), Error> {
        self.offering(relay, &[ALPN])
    }

    pub(super) fn offering(
        &self,
        relay: RelayId,
        protocols: &[&[u8]],
    ) -> Result<(QuicClientConfig, Arc<Finding>), Error> {
        let finding = Arc::new(Finding::default());
        let verifier = PinnedRelay {
            relay,
            finding: finding.clone(),
            algorithms: self.provider.signature_verification_algorithms,
        };
        let builder = match &self.determinism {
            Some(given) => rustls::ClientConfig::builder_with_details(self.provider.clone(), given.time_provider()),
            None => rustls::ClientConfig::builder_with_provider(self.provider.clone()),
        }
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.key {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok((QuicClientConfig::try_from(config).map_err(no_initial_suite)?, finding))
    }
}
