//! TLS to PostgreSQL, as `sslmode` and `sslrootcert` in its address ask for it (PostgreSQL 17 documentation, libpq, "SSL
//! Support"). The driver knows neither `verify-full` nor `sslrootcert`, so they are taken out of the address here.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What is asked of the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    /// Nothing: whoever listens on the way hears nothing, and who stands in for the server is not noticed.
    Nothing,
    /// That one of these authorities has signed it, for the name in the address.
    Full { roots: String },
}

/// The address as the driver takes it, and the check.
///
/// # Errors
/// What is wrong with the parameters.
pub(super) fn of_url(url: &str) -> Result<(String, Check), String> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), Check::Nothing)) };
    let (mut rest, mut full, mut roots) = (Vec::new(), false, None);
    for parameter in query.split('&') {
        match parameter.split_once('=') {
            Some(("sslmode", "verify-full")) => {
                full = true;
                rest.push("sslmode=require");
            }
            Some(("sslmode", mode @ ("verify-ca" | "allow"))) => {
                return Err(format!("sslmode={mode} is not there: verify-full, require, prefer or disable"));
            }
            Some(("sslrootcert", path)) => {
                let path = percent_encoding::percent_decode_str(path).decode_utf8();
                roots = Some(path.map_err(|e| format!("sslrootcert: {e}"))?.into_owned());
            }
            _ => rest.push(parameter),
        }
    }
    let check = match (full, roots) {
        (true, Some(roots)) => Check::Full { roots },
        (false, None) => Check::Nothing,
        (true, None) => return Err("sslmode=verify-full needs sslrootcert, a file with PEM".to_owned()),
        (false, Some(_)) => return Err("sslrootcert is of use with sslmode=verify-full only".to_owned()),
    };
    let query = if rest.is_empty() { String::new() } else { format!("?{}", rest.join("&")) };
    Ok((format!("{base}{query}"), check))
}

/// Makes connections with TLS.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    named: bool,
}

impl Tls {
    /// # Errors
    /// If the authorities cannot be read.
    pub(super) fn new(check: &Check) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
        let config = match check {
            Check::Nothing => {
                config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            }
            Check::Full { roots } => config.with_root_certificates(authorities(Path::new(roots))?),
        };
        let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
        Ok(Self { connector, named: *check != Check::Nothing })
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("sslrootcert {}: {e}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))? {
        roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
    }
    if roots.is_empty() { Err(wrong(&"no certificate is in it")) } else { Ok(roots) }
}

/// Takes every certificate, if only the server has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// One connection to be.
pub(super) struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, InvalidDnsNameError> {
        let name = match ServerName::try_from(host.to_owned()) {
            // A name that certificates cannot have, such as one with an underscore.
            Err(_) if !self.named => ServerName::try_from("unnamed.invalid")?,
            name => name?,
        };
        Ok(Handshake { connector: self.connector.clone(), name })
    }
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.connector.connect(self.name, stream).await.map(Encrypted) })
    }
}

/// What goes over a connection with TLS.
pub(super) struct Encrypted<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_says_what_is_checked() {
        let good = |url: &str| of_url(url).unwrap();
        assert_eq!(good("postgres://h/d"), ("postgres://h/d".into(), Check::Nothing));
        let plain = "postgres://h/d?sslmode=disable&options=-c%20a%3Db";
        assert_eq!(good(plain), (plain.into(), Check::Nothing));
        assert_eq!(
            good("postgres://h/d?sslrootcert=/etc/a%20b.pem&sslmode=verify-full"),
            ("postgres://h/d?sslmode=require".into(), Check::Full { roots: "/etc/a b.pem".into() })
        );
        for wrong in
            ["sslmode=verify-ca", "sslmode=verify-full", "sslrootcert=a.pem", "sslmode=require&sslrootcert=a"]
        {
            of_url(&format!("postgres://h/d?{wrong}")).unwrap_err();
        }
        assert!(Tls::new(&Check::Full { roots: "/nowhere.pem".into() }).is_err());
    }
}
