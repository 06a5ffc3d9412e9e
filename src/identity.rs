//! Who a peer or a relay is: an Ed25519 key pair, the certificate that carries it, and the two files they
//! live in.
//!
//! Everything is made from the 32 bytes of the secret: the same seed gives the same id, the same certificate
//! and the same derived keys. The bytes never leave this file but as a PKCS#8 document for TLS and for the
//! key file; `Debug` shows the id alone.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::hkdf;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

use crate::id::{KEY_BYTES, PeerId, RelayId};
use crate::random::Entropy;

/// What stands before the key in the SubjectPublicKeyInfo of an Ed25519 certificate (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// Bytes of an Ed25519 secret (RFC 8032, section 5.1.5).
pub const SEED_BYTES: usize = 32;

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What stands before the seed in the PKCS#8 version 1 form of an Ed25519 key (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// The name in every certificate. Nobody checks it: a key is its own name.
const CERTIFICATE_NAME: &str = "posthouse";

/// Certificates are checked by key alone, so their dates only have to satisfy other people's tools. Fixed, so
/// that a seed has one certificate.
const VALID_FROM_YEAR: i32 = 2020;
/// See [`VALID_FROM_YEAR`].
const VALID_UNTIL_YEAR: i32 = 2120;

/// Bytes of a key or certificate file that are read at most: both are below 1 KiB.
const MAX_FILE_BYTES: u64 = 64 << 10;

const KEY_TAG: &str = "PRIVATE KEY";
const CERTIFICATE_TAG: &str = "CERTIFICATE";

/// A key pair and its certificate. Cloning shares them.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    seed: [u8; SEED_BYTES],
    key: Ed25519KeyPair,
    public: [u8; KEY_BYTES],
    certificate: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id().short())
    }
}

impl Identity {
    /// A new identity.
    #[must_use]
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::from_seed(entropy.bytes())
    }

    /// The identity with this secret, always the same one.
    ///
    /// # Panics
    /// Never: every 32 bytes are an Ed25519 secret, and the certificate is made of constants.
    #[must_use]
    #[expect(clippy::expect_used, reason = "nothing in it depends on input")]
    pub fn from_seed(seed: [u8; SEED_BYTES]) -> Self {
        let certificate = certify(&seed).expect("a fixed certificate can be signed");
        Self::assemble(seed, certificate).expect("32 bytes are a secret")
    }

    fn assemble(seed: [u8; SEED_BYTES], certificate: Vec<u8>) -> Option<Self> {
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        let public = <[u8; KEY_BYTES]>::try_from(key.public_key().as_ref()).ok()?;
        Some(Self(Arc::new(Inner { seed, key, public, certificate })))
    }

    /// The id of a peer with this key.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(self.0.public)
    }

    /// The id of a relay with this key.
    #[must_use]
    pub fn relay_id(&self) -> RelayId {
        RelayId::from_bytes(self.0.public)
    }

    /// The Ed25519 signature over `message`; [`verify`] checks it.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut bytes = [0; SIGNATURE_BYTES];
        for (to, from) in bytes.iter_mut().zip(self.0.key.sign(message).as_ref()) {
            *to = *from;
        }
        bytes
    }

    /// A secret for one purpose, by HKDF-SHA256 (RFC 5869) from this identity's own: the same label gives the
    /// same bytes, and none of them tell anything about another label's.
    ///
    /// # Panics
    /// Never for an `N` of up to 255 * 32.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the length is the caller's constant")]
    pub fn derive<const N: usize>(&self, label: &[u8]) -> [u8; N] {
        const { assert!(N <= 255 * 32, "HKDF-SHA256 gives at most 8160 bytes") };
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let mut bytes = [0; N];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"posthouse identity 1")
            .extract(&self.0.seed)
            .expand(&[label], Length(N))
            .and_then(|key| key.fill(&mut bytes))
            .expect("HKDF gives so many bytes");
        bytes
    }

    /// The self-signed X.509 certificate.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.0.certificate
    }

    /// The secret key as a PKCS#8 document, for TLS.
    #[must_use]
    pub(crate) fn key_der(&self) -> Vec<u8> {
        pkcs8(&self.0.seed)
    }

    /// Loads `<name>.key` and `<name>.crt` from `dir`. What is missing is made: the directory, the key, and the
    /// certificate of a key that was put there by hand. Files are written under a temporary name, synced and
    /// renamed, the key with mode 0600.
    ///
    /// # Errors
    /// [`IdentityError`] names the file and the way out. Nothing that exists is ever overwritten.
    pub fn load_or_create(dir: &Path, name: &str, entropy: &dyn Entropy) -> Result<Self, IdentityError> {
        let key_file = dir.join(format!("{name}.key"));
        let certificate_file = dir.join(format!("{name}.crt"));
        let Some(key) = read(&key_file)? else {
            if read(&certificate_file)?.is_some() {
                return Err(IdentityError::KeyMissing { key: key_file, certificate: certificate_file });
            }
            let identity = Self::generate(entropy);
            fs::create_dir_all(dir).map_err(|source| IdentityError::Write { file: dir.to_owned(), source })?;
            write(&key_file, KEY_TAG, &identity.key_der(), 0o600)?;
            write(&certificate_file, CERTIFICATE_TAG, identity.certificate_der(), 0o644)?;
            return Ok(identity);
        };
        warn_if_open(&key_file);
        let seed = seed_of(&unwrap_pem(&key, KEY_TAG, &key_file)?)
            .ok_or_else(|| IdentityError::WrongKey { file: key_file.clone() })?;
        let made = Self::from_seed(seed);
        let Some(certificate) = read(&certificate_file)? else {
            write(&certificate_file, CERTIFICATE_TAG, made.certificate_der(), 0o644)?;
            return Ok(made);
        };
        let certificate = unwrap_pem(&certificate, CERTIFICATE_TAG, &certificate_file)?;
        match key_of_certificate(&certificate) {
            None => Err(IdentityError::BadCertificate { file: certificate_file }),
            Some(key) if key != made.0.public => {
                Err(IdentityError::CertificateMismatch { key: key_file, certificate: certificate_file })
            }
            Some(_) => Ok(Self::assemble(seed, certificate).unwrap_or(made)),
        }
    }
}

/// The Ed25519 key of a certificate; `None` if it is damaged or has a key of another kind.
pub(crate) fn key_of_certificate(der: &[u8]) -> Option<[u8; KEY_BYTES]> {
    let der = CertificateDer::from(der);
    let spki = ParsedCertificate::try_from(&der).ok()?.subject_public_key_info();
    spki.as_ref().strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

/// A name made from a key, for use among keys, that is nobody's key.
#[must_use]
pub fn name_from(label: &str, key: &[u8]) -> [u8; 32] {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(label.as_bytes());
    hash.update(key);
    let mut name = [0; 32];
    name.copy_from_slice(hash.finish().as_ref());
    name
}

/// Whether `signature` is the holder of `signer`'s signature over `message`.
#[must_use]
pub fn verify(signer: &PeerId, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    UnparsedPublicKey::new(&ED25519, signer.as_bytes()).verify(message, signature).is_ok()
}

fn pkcs8(seed: &[u8; SEED_BYTES]) -> Vec<u8> {
    [&PKCS8_PREFIX[..], seed].concat()
}

/// The secret in a PKCS#8 document of version 1 or 2, if it is one of an Ed25519 key.
fn seed_of(document: &[u8]) -> Option<[u8; SEED_BYTES]> {
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(document).ok()?;
    // In both versions the secret stands behind a header of the same length. Whether that is true of this
    // document is not assumed: what is found there has to make the public key that the parser found.
    let seed = *document.get(PKCS8_PREFIX.len()..)?.first_chunk()?;
    let found = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
    (found.public_key().as_ref() == key.public_key().as_ref()).then_some(seed)
}

/// The certificate of a key. It depends on the key alone: the dates are constants, and rcgen takes the serial
/// number from the public key.
fn certify(seed: &[u8; SEED_BYTES]) -> Result<Vec<u8>, rcgen::Error> {
    let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8(seed).as_slice().into(), &rcgen::PKCS_ED25519)?;
    let mut parameters = rcgen::CertificateParams::new(vec![CERTIFICATE_NAME.to_owned()])?;
    parameters.not_before = rcgen::date_time_ymd(VALID_FROM_YEAR, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(VALID_UNTIL_YEAR, 1, 1);
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, CERTIFICATE_NAME);
    Ok(parameters.self_signed(&key)?.der().to_vec())
}

/// Why an identity cannot be loaded or made. Always a local matter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file is there and cannot be read.
    #[error("cannot read {}: make it readable for this user", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}: make its directory writable for this user, or name another one", file.display())]
    Write {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is no PEM document of its kind.
    #[error("{} holds no PEM block \"{wanted}\": put one there, or move the file away", file.display())]
    NotPem {
        /// Which file.
        file: PathBuf,
        /// The block that is missing.
        wanted: &'static str,
    },
    /// The key is none of Ed25519, or damaged.
    #[error(
        "{} is no unencrypted Ed25519 key in PKCS#8 form: make one with `openssl genpkey -algorithm ed25519`",
        file.display()
    )]
    WrongKey {
        /// Which file.
        file: PathBuf,
    },
    /// There is a certificate, and its key is gone.
    #[error(
        "{} is missing but {} is there: put the key back, or move the certificate away to start with a new identity",
        key.display(), certificate.display()
    )]
    KeyMissing {
        /// The file that is missing.
        key: PathBuf,
        /// The file that is there.
        certificate: PathBuf,
    },
    /// The certificate is damaged, or is none of an Ed25519 key.
    #[error("{} is no X.509 certificate of an Ed25519 key: move it away and it is made anew", file.display())]
    BadCertificate {
        /// Which file.
        file: PathBuf,
    },
    /// The certificate is one of another key.
    #[error(
        "{} belongs to another key than {}: move the certificate away and it is made anew",
        certificate.display(), key.display()
    )]
    CertificateMismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
}

/// The content of a file; `None` if there is none.
fn read(file: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    let bytes = fs::File::open(file).and_then(|open| {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(open, MAX_FILE_BYTES), &mut bytes)?;
        Ok(bytes)
    });
    match bytes {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Read { file: file.to_owned(), source }),
    }
}

/// The first block of this kind in a PEM file; others, such as a chain or parameters, may stand beside it.
fn unwrap_pem(text: &[u8], wanted: &'static str, file: &Path) -> Result<Vec<u8>, IdentityError> {
    let blocks = pem::parse_many(text).unwrap_or_default();
    blocks
        .into_iter()
        .find(|block| block.tag() == wanted)
        .map(pem::Pem::into_contents)
        .ok_or_else(|| IdentityError::NotPem { file: file.to_owned(), wanted })
}

/// Writes a PEM file so that at any time either all of it is there or nothing.
fn write(file: &Path, tag: &str, content: &[u8], mode: u32) -> Result<(), IdentityError> {
    let text =
        pem::encode_config(&pem::Pem::new(tag, content), pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF));
    let temporary = file.with_added_extension("new");
    let written = (|| {
        // A leftover of a run that was killed here has no value, and may have the wrong mode.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut open = create(&temporary, mode)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()?;
        fs::rename(&temporary, file)?;
        sync_directory(file)
    })();
    written.map_err(|source| IdentityError::Write { file: file.to_owned(), source })
}

fn create(file: &Path, mode: u32) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(file)
}

/// A rename is durable once the directory is.
fn sync_directory(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(dir) if cfg!(unix) => {
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            fs::File::open(dir)?.sync_all()
        }
        _ => Ok(()),
    }
}

/// A key that others may read is used all the same: somebody may have a reason, and they are told.
#[cfg(unix)]
fn warn_if_open(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "other users can read this secret key: chmod 600 it");
    }
}

#[cfg(not(unix))]
fn warn_if_open(_: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemEntropy;

    fn load(dir: &Path) -> Result<Identity, IdentityError> {
        Identity::load_or_create(dir, "relay", &SystemEntropy)
    }

    fn put(file: &Path, tag: &str, content: &[u8]) {
        fs::write(file, pem::encode(&pem::Pem::new(tag, content))).unwrap();
    }

    #[test]
    fn a_seed_has_one_key_one_certificate_and_one_secret_for_each_label() {
        let (one, same, other) =
            (Identity::from_seed([1; 32]), Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        assert_eq!(one.peer_id(), same.peer_id());
        assert_eq!(one.certificate_der(), same.certificate_der());
        assert_ne!(one.peer_id(), other.peer_id());
        assert_eq!(key_of_certificate(one.certificate_der()), Some(*one.peer_id().as_bytes()));
        assert_eq!(one.derive::<32>(b"a"), same.derive::<32>(b"a"));
        assert_ne!(one.derive::<32>(b"a"), one.derive::<32>(b"b"));
        assert_ne!(one.derive::<32>(b"a"), other.derive::<32>(b"a"));
        assert_eq!(one.derive::<64>(b"a").len(), 64);
    }

    #[test]
    fn the_key_of_rfc_8032_signs_as_it_should() {
        // Section 7.1, test 2.
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let identity = Identity::from_seed(seed.try_into().unwrap());
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(identity.relay_id().as_bytes()[..], hex(public));
        let signature = identity.sign(&[0x72]);
        let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        assert_eq!(signature[..], hex(expected));
        assert!(verify(&identity.peer_id(), &[0x72], &signature));
    }

    #[test]
    fn only_the_signers_signature_over_that_message_verifies() {
        let (signer, other) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let signature = signer.sign(b"hello");
        assert!(verify(&signer.peer_id(), b"hello", &signature));
        assert!(!verify(&other.peer_id(), b"hello", &signature));
        assert!(!verify(&signer.peer_id(), b"hellp", &signature));
        for bit in 0..512 {
            let mut changed = signature;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(&signer.peer_id(), b"hello", &changed), "bit {bit}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let identity = Identity::from_seed([0xab; 32]);
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.peer_id().short()));
    }

    #[test]
    fn an_identity_is_made_once_and_then_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("new/certs");
        let made = load(&place).unwrap();
        let found = load(&place).unwrap();
        assert_eq!(found.peer_id(), made.peer_id());
        assert_eq!(found.certificate_der(), made.certificate_der());
        assert_ne!(Identity::load_or_create(&place, "other", &SystemEntropy).unwrap().peer_id(), made.peer_id());
        let mut names: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["other.crt", "other.key", "relay.crt", "relay.key"]);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_a_key_that_was_made_here() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        // The leftover of a run that was killed, with a mode of its own.
        fs::write(dir.path().join("relay.key.new"), "half").unwrap();
        let made = load(dir.path()).unwrap();
        let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("relay.key"), mode("relay.crt")), (0o600, 0o644));
        // One that others can read still works: they are warned.
        fs::set_permissions(dir.path().join("relay.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load(dir.path()).unwrap().peer_id(), made.peer_id());
    }

    #[test]
    fn a_certificate_that_is_missing_is_made_from_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let made = load(dir.path()).unwrap();
        fs::remove_file(dir.path().join("relay.crt")).unwrap();
        let found = load(dir.path()).unwrap();
        assert_eq!(found.certificate_der(), made.certificate_der());
        assert!(dir.path().join("relay.crt").exists());
    }

    #[test]
    fn keys_of_both_pkcs8_versions_are_taken() {
        let seed = [7; 32];
        let expected = Identity::from_seed(seed).peer_id();
        let public = expected.as_bytes();
        // RFC 5958, section 2: the public key follows, tagged [1]; openssl writes version 1, ring this one.
        let mut second = vec![0x30, 0x51, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        second.extend_from_slice(&seed);
        second.extend_from_slice(&[0x81, 0x21, 0]);
        second.extend_from_slice(public);
        let rings = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let rings_public = *Ed25519KeyPair::from_pkcs8(rings.as_ref()).unwrap().public_key();
        for (document, key) in
            [(pkcs8(&seed), &public[..]), (second, &public[..]), (rings.as_ref().to_vec(), rings_public.as_ref())]
        {
            let dir = tempfile::tempdir().unwrap();
            put(&dir.path().join("relay.key"), KEY_TAG, &document);
            assert_eq!(load(dir.path()).unwrap().peer_id().as_bytes()[..], *key);
        }
    }

    #[test]
    fn a_public_key_that_does_not_belong_to_the_secret_is_refused() {
        let mut document = vec![0x30, 0x51, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        document.extend_from_slice(&[7; 32]);
        document.extend_from_slice(&[0x81, 0x21, 0]);
        document.extend_from_slice(Identity::from_seed([8; 32]).peer_id().as_bytes());
        assert_eq!(seed_of(&document), None);
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_names_the_file_and_changes_nothing() {
        let rsa_like = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let foreign = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&rsa_like).unwrap();
        let other = Identity::from_seed([9; 32]);
        type Case<'a> = (&'a str, &'a dyn Fn(&Path, &Path), fn(&IdentityError) -> bool, &'a str);
        let cases: [Case<'_>; 7] = [
            (
                "no key",
                &|key, _| fs::remove_file(key).unwrap(),
                |e| matches!(e, IdentityError::KeyMissing { .. }),
                "key",
            ),
            ("no PEM", &|key, _| fs::write(key, "?").unwrap(), |e| matches!(e, IdentityError::NotPem { .. }), "key"),
            (
                "another kind",
                &|key, _| put(key, KEY_TAG, rsa_like.serialized_der()),
                |e| matches!(e, IdentityError::WrongKey { .. }),
                "key",
            ),
            (
                "encrypted",
                &|key, _| put(key, "ENCRYPTED PRIVATE KEY", &[0x30, 0]),
                |e| matches!(e, IdentityError::NotPem { .. }),
                "key",
            ),
            (
                "unreadable",
                &|key, _| {
                    fs::remove_file(key).unwrap();
                    fs::create_dir(key).unwrap();
                },
                |e| matches!(e, IdentityError::Read { .. }),
                "key",
            ),
            (
                "a foreign certificate",
                &|_, certificate| put(certificate, CERTIFICATE_TAG, foreign.der()),
                |e| matches!(e, IdentityError::BadCertificate { .. }),
                "crt",
            ),
            (
                "another's certificate",
                &|_, certificate| put(certificate, CERTIFICATE_TAG, other.certificate_der()),
                |e| matches!(e, IdentityError::CertificateMismatch { .. }),
                "crt",
            ),
        ];
        for (name, spoil, expected, named) in cases {
            let dir = tempfile::tempdir().unwrap();
            load(dir.path()).unwrap();
            let (key, certificate) = (dir.path().join("relay.key"), dir.path().join("relay.crt"));
            spoil(&key, &certificate);
            let before = (fs::read(&key).ok(), fs::read(&certificate).ok());
            let error = load(dir.path()).unwrap_err();
            assert!(expected(&error), "{name}: {error:?}");
            assert!(error.to_string().contains(&format!("relay.{named}")), "{name}: {error}");
            assert_eq!((fs::read(&key).ok(), fs::read(&certificate).ok()), before, "{name}");
        }
    }
}
