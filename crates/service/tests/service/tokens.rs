use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roost_proto::claims::Role;
use roost_proto::{Claims, UserId};
use roost_service::tokens::{KeyError, KeySource, LEEWAY_S, TOKEN_BYTES_MAX, sign, sign_for};
use roost_service::{Secret, TokenError, Verifier};
use serde_json::{Value, json};

const NOW_S: u64 = 1_795_240_831;

fn secret() -> Secret {
    Secret::new("0123456789abcdef0123456789abcdef")
}

fn verifier(audience: Option<&str>, issuer: Option<&str>) -> Verifier {
    Verifier::new(
        KeySource::from_secret(&secret()).unwrap(),
        audience.map(Into::into),
        issuer.map(Into::into),
    )
}

fn alice() -> Claims {
    let sub = UserId::new("alice").unwrap();
    Claims { sub, exp: NOW_S + 60, role: Role::User, rooms: Some(vec!["team-*".into()]), watch: None }
}

/// Signed by the right secret, whatever the claims and the header are.
fn token(header: &Header, claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret().expose().as_bytes())).unwrap()
}

fn plain(claims: Value) -> String {
    token(&Header::default(), &claims)
}

#[test]
fn what_was_signed_is_what_is_read() {
    let service = Claims { role: Role::Service, rooms: None, watch: Some(vec!["bob".into()]), ..alice() };
    for claims in [alice(), service] {
        assert_eq!(verifier(None, None).verify(&sign(&secret(), &claims), NOW_S), Ok(claims.clone()));
        let for_chat = sign_for(&secret(), &claims, Some("chat"), Some("issuer"));
        assert_eq!(verifier(Some("chat"), Some("issuer")).verify(&for_chat, NOW_S), Ok(claims));
    }
}

#[test]
fn a_token_is_refused_for_the_right_reason() {
    let (audience, issuer) = (Some("chat"), Some("https://id.example"));
    let exp = NOW_S + 60;
    let claim = |text: &str| Err(TokenError::Claim(text.into()));
    let table = [
        (None, None, json!({"sub": "alice", "exp": exp}), Ok(())),
        // Time: five seconds either way, not six.
        (None, None, json!({"sub": "alice", "exp": NOW_S - LEEWAY_S + 1}), Ok(())),
        (None, None, json!({"sub": "alice", "exp": NOW_S - LEEWAY_S}), Err(TokenError::Expired)),
        (None, None, json!({"sub": "alice", "exp": 0}), Err(TokenError::Expired)),
        (None, None, json!({"sub": "alice", "exp": exp, "nbf": NOW_S + LEEWAY_S}), Ok(())),
        (
            None,
            None,
            json!({"sub": "alice", "exp": exp, "nbf": NOW_S + LEEWAY_S + 1}),
            Err(TokenError::NotYet),
        ),
        (None, None, json!({"sub": "alice"}), claim("exp is missing")),
        (None, None, json!({"sub": "alice", "exp": "soon"}), claim("exp is not in seconds since 1970")),
        (None, None, json!({"sub": "alice", "exp": null}), claim("exp is missing")),
        (None, None, json!({"sub": "alice", "exp": exp, "nbf": null}), Ok(())),
        (None, None, json!({"sub": "alice", "exp": -1}), claim("exp is not in seconds since 1970")),
        (None, None, json!({"sub": "alice", "exp": exp * 1000}), claim("exp is not in seconds since 1970")),
        (None, None, json!({"sub": "alice", "exp": 1e300}), claim("exp is not in seconds since 1970")),
        (
            None,
            None,
            json!({"sub": "alice", "exp": exp, "nbf": "x"}),
            claim("nbf is not in seconds since 1970"),
        ),
        // For whom.
        (audience, None, json!({"sub": "alice", "exp": exp}), Err(TokenError::Audience)),
        (audience, None, json!({"sub": "alice", "exp": exp, "aud": "mail"}), Err(TokenError::Audience)),
        (audience, None, json!({"sub": "alice", "exp": exp, "aud": 7}), Err(TokenError::Audience)),
        (audience, None, json!({"sub": "alice", "exp": exp, "aud": []}), Err(TokenError::Audience)),
        (audience, None, json!({"sub": "alice", "exp": exp, "aud": "chat"}), Ok(())),
        (audience, None, json!({"sub": "alice", "exp": exp, "aud": ["mail", "chat"]}), Ok(())),
        (None, None, json!({"sub": "alice", "exp": exp, "aud": "mail"}), Err(TokenError::NoAudience)),
        // By whom.
        (None, issuer, json!({"sub": "alice", "exp": exp}), Err(TokenError::Issuer)),
        (None, issuer, json!({"sub": "alice", "exp": exp, "iss": "https://evil"}), Err(TokenError::Issuer)),
        (
            None,
            issuer,
            json!({"sub": "alice", "exp": exp, "iss": ["https://id.example"]}),
            Err(TokenError::Issuer),
        ),
        (None, issuer, json!({"sub": "alice", "exp": exp, "iss": "https://id.example"}), Ok(())),
        (None, None, json!({"sub": "alice", "exp": exp, "iss": "anyone"}), Ok(())),
        // Who.
        (None, None, json!({"exp": exp}), claim("sub is missing")),
        (None, None, json!({"sub": 7, "exp": exp}), claim("sub is not a text")),
        (None, None, json!({"sub": "", "exp": exp}), claim("sub: user id is empty")),
        (None, None, json!({"sub": "#x", "exp": exp}), claim("sub: a user id must not start with '#'")),
        (
            None,
            None,
            json!({"sub": "roost.canary.1", "exp": exp}),
            claim("sub: ids that begin with 'roost.' are reserved"),
        ),
        (
            None,
            None,
            json!({"sub": "x".repeat(129), "exp": exp}),
            claim("sub: user id is longer than 128 bytes"),
        ),
        // What else it may do: named, and nothing is as good as left out.
        (
            None,
            None,
            json!({"sub": "alice", "exp": exp, "role": "admin"}),
            claim("role is neither \"user\" nor \"service\""),
        ),
        (
            None,
            None,
            json!({"sub": "alice", "exp": exp, "rooms": "*"}),
            claim("rooms is not a list of texts, such as [\"team-*\"] or [\"*\"]"),
        ),
        (
            None,
            None,
            json!({"sub": "alice", "exp": exp, "watch": [1]}),
            claim("watch is not a list of texts, such as [\"team-*\"] or [\"*\"]"),
        ),
        (None, None, json!({"sub": "alice", "exp": exp, "role": null, "rooms": null, "watch": null}), Ok(())),
        // What is not an object is not a set of claims.
        (None, None, json!(["alice"]), Err(TokenError::Malformed)),
    ];
    for (audience, issuer, claims, expected) in table {
        let outcome = verifier(audience, issuer).verify(&plain(claims.clone()), NOW_S);
        assert_eq!(outcome.map(|_| ()), expected, "{claims} for {audience:?} by {issuer:?}");
    }
    let fraction = plain(json!({"sub": "alice", "exp": 1_795_240_891.75}));
    assert_eq!(verifier(None, None).verify(&fraction, NOW_S).unwrap().exp, NOW_S + 60);
}

#[test]
fn only_our_key_and_our_algorithm_are_accepted() {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"sub": "alice", "exp": NOW_S + 60});
    let refused = |token: &str| verifier(None, None).verify(token, NOW_S).unwrap_err();

    for alg in ["none", "None", "nOnE", "HS1"] {
        let header = part(&json!({"alg": alg, "typ": "JWT"}));
        assert_eq!(refused(&format!("{header}.{}.", part(&claims))), TokenError::Malformed, "{alg}");
    }
    let good = plain(claims.clone());
    let signature = good.rsplit('.').next().unwrap();
    let rs256 = part(&json!({"alg": "RS256"}));
    assert_eq!(refused(&format!("{rs256}.{}.{signature}", part(&claims))), TokenError::Signature);
    // Of the same family and by the same secret, and still not the algorithm we chose.
    assert_eq!(refused(&token(&Header::new(Algorithm::HS512), &claims)), TokenError::Signature);

    let other = Secret::new("fedcba9876543210fedcba9876543210");
    assert_eq!(refused(&sign(&other, &alice())), TokenError::Signature);
    let (head, _) = good.rsplit_once('.').unwrap();
    let (header, _) = head.split_once('.').unwrap();
    let mallory = part(&json!({"sub": "mallory", "exp": NOW_S + 60}));
    assert_eq!(refused(&format!("{header}.{mallory}.{signature}")), TokenError::Signature);
    assert_eq!(refused(&format!("{head}.")), TokenError::Signature);

    let critical = Header { crit: Some(vec!["b64".into()]), ..Header::default() };
    assert_eq!(refused(&token(&critical, &claims)), TokenError::Malformed);
    for text in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", head, &format!("{good}.x"), "\u{0}.\u{1}.é"] {
        assert_eq!(refused(text), TokenError::Malformed, "{text}");
    }
    let long = plain(json!({"sub": "alice", "exp": NOW_S + 60, "pad": "p".repeat(TOKEN_BYTES_MAX)}));
    assert_eq!(refused(&long), TokenError::Malformed);
}

#[test]
fn an_empty_secret_is_no_secret() {
    assert!(KeySource::from_secret(&Secret::new("short")).is_ok());
    let wrong = KeySource::from_secret(&Secret::new("")).unwrap_err();
    assert_eq!(wrong, KeyError::Empty);
}

#[test]
fn a_key_of_a_pair_is_no_secret() {
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": "…", "y": "…"}).to_string();
    for text in [
        &pem("PUBLIC KEY", b"x"),
        &pem("RSA PUBLIC KEY", b"x"),
        &pem("CERTIFICATE", b"x"),
        &pem("PRIVATE KEY", b"x"),
        // As it gets into an environment by way of YAML.
        &pem("PUBLIC KEY", b"x").replace('\n', "\\n"),
        "ssh-rsa AAAAB3NzaC1yc2E",
        "ecdsa-sha2-nistp256 AAAA",
        &jwk,
    ] {
        assert_eq!(KeySource::from_secret(&Secret::new(text)).unwrap_err(), KeyError::NoSecret, "{text}");
    }
    for text in ["{\"kty\":\"oct\"}", "{}", "a ssh-key of a secret", "-----"] {
        assert!(KeySource::from_secret(&Secret::new(text)).is_ok(), "{text}");
    }
}

#[test]
fn a_token_for_an_audience_says_so_where_none_is_configured() {
    let told = TokenError::NoAudience.body();
    assert_eq!(told.code, roost_proto::ErrorCode::Unauthorized);
    assert!(told.message.contains("(aud)") && told.message.contains("JWT_AUDIENCE"), "{told}");
}

#[test]
fn a_verifier_shows_no_key() {
    let shown = format!("{:?}", verifier(Some("chat"), None));
    assert!(!shown.contains("0123456789") && shown.contains("redacted"), "{shown}");
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A SubjectPublicKeyInfo (RFC 5280 §4.1) is the algorithm's fixed bytes, then the key's.
fn spki(prefix: &[u8], public: &[u8]) -> String {
    pem("PUBLIC KEY", &[prefix, public].concat())
}

const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P384_SPKI: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];

#[test]
fn a_public_key_checks_what_its_private_key_signed_and_nothing_else() {
    let ed = Ed25519KeyPair::generate().unwrap();
    let ed_pem = spki(&ED25519_SPKI, ed.public_key().as_ref());
    let ed_key = EncodingKey::from_ed_der(ed.to_pkcs8().unwrap().as_ref());
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ec_pem = spki(&P256_SPKI, ec.public_key().as_ref());
    let ec_key = EncodingKey::from_ec_der(ec.to_pkcs8v1().unwrap().as_ref());
    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let rsa_pem = pem(
        "PUBLIC KEY",
        AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap().as_ref(),
    );
    // PKCS#1, the older form, is the inner part of the same key.
    let rsa_old_pem = pem("RSA PUBLIC KEY", rsa.public_key().as_ref());
    let pkcs8 = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
    let rsa_key = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", pkcs8.as_ref()).as_bytes()).unwrap();

    let keys = [
        (Algorithm::EdDSA, &ed_key, &ed_pem),
        (Algorithm::ES256, &ec_key, &ec_pem),
        (Algorithm::RS256, &rsa_key, &rsa_pem),
        (Algorithm::RS256, &rsa_key, &rsa_old_pem),
    ];
    for (n, (_, _, public)) in keys.iter().enumerate() {
        let verifier = Verifier::new(KeySource::from_public_pem(public).unwrap(), None, None);
        for (m, (algorithm, private, _)) in keys.iter().enumerate() {
            let token = jsonwebtoken::encode(&Header::new(*algorithm), &alice(), private).unwrap();
            let outcome = verifier.verify(&token, NOW_S);
            if keys[n].0 == keys[m].0 {
                assert_eq!(outcome, Ok(alice()), "{algorithm:?}");
            } else {
                assert_eq!(outcome, Err(TokenError::Signature), "{algorithm:?} by another key");
            }
        }
        // The old trick: the public key, which everybody has, used as the secret of an HMAC.
        let forged = sign(&Secret::new(public.as_str()), &alice());
        assert_eq!(verifier.verify(&forged, NOW_S), Err(TokenError::Signature));
    }
    let pss = jsonwebtoken::encode(&Header::new(Algorithm::PS256), &alice(), &rsa_key).unwrap();
    let verifier = Verifier::new(KeySource::from_public_pem(&rsa_pem).unwrap(), None, None);
    assert_eq!(verifier.verify(&pss, NOW_S), Err(TokenError::Signature));
}

#[test]
fn a_key_that_can_never_check_anything_is_refused_at_once() {
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let ed = Ed25519KeyPair::generate().unwrap();
    let table = [
        (spki(&P384_SPKI, p384.public_key().as_ref()), KeyError::Curve),
        (pem("PRIVATE KEY", ed.to_pkcs8().unwrap().as_ref()), KeyError::Private),
        (pem("RSA PUBLIC KEY", &[0x30, 0x06, 0x02, 0x01, 0x05, 0x02, 0x01, 0x03]), KeyError::SmallRsa),
        (pem("CERTIFICATE", &[0x30, 0x00]), KeyError::NotPublicPem),
        (pem("PUBLIC KEY", b"nonsense"), KeyError::NotPublicPem),
        ("-----BEGIN PUBLIC KEY-----".into(), KeyError::NotPublicPem),
        ("hello".into(), KeyError::NotPublicPem),
    ];
    for (text, expected) in table {
        assert_eq!(KeySource::from_public_pem(&text).unwrap_err(), expected, "{text}");
    }
}
