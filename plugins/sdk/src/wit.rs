//! Generated bindings and nothing else. Every hook is a world of its own: a
//! component must define all exports of its world, while imports that are
//! never called vanish from it.

pub mod host {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tollgate:sdk;
            world host {
                import tollgate:plugin/types@0.1.0;
                import tollgate:plugin/llm-types@0.1.0;
                import tollgate:plugin/log@0.1.0;
                import tollgate:plugin/key-value@0.1.0;
                import tollgate:plugin/ledger@0.1.0;
                import tollgate:plugin/secrets@0.1.0;
                import tollgate:plugin/control@0.1.0;
            }
        ",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
    });
}

pub mod lifecycle {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tollgate:sdk;
            world lifecycle { export tollgate:plugin/lifecycle@0.1.0; }
        ",
        generate_all,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
    });
}

pub mod http_filter {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tollgate:sdk;
            world http-filter { export tollgate:plugin/http-filter@0.1.0; }
        ",
        with: {
            "tollgate:plugin/types@0.1.0": crate::wit::host::tollgate::plugin::types,
        },
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_http_filter",
    });
}

pub mod admission {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tollgate:sdk;
            world admission { export tollgate:plugin/admission@0.1.0; }
        ",
        with: {
            "tollgate:plugin/types@0.1.0": crate::wit::host::tollgate::plugin::types,
            "tollgate:plugin/llm-types@0.1.0": crate::wit::host::tollgate::plugin::llm_types,
        },
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_admission",
    });
}

pub mod planner {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tollgate:sdk;
            world planner { export tollgate:plugin/planner@0.1.0; }
        ",
        with: {
            "tollgate:plugin/types@0.1.0": crate::wit::host::tollgate::plugin::types,
            "tollgate:plugin/llm-types@0.1.0": crate::wit::host::tollgate::plugin::llm_types,
        },
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_planner",
    });
}

pub mod credentials {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tollgate:sdk;
            world credentials { export tollgate:plugin/credentials@0.1.0; }
        ",
        with: {
            "tollgate:plugin/types@0.1.0": crate::wit::host::tollgate::plugin::types,
        },
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_credentials",
    });
}

pub mod settlement {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tollgate:sdk;
            world settlement { export tollgate:plugin/settlement@0.1.0; }
        ",
        with: {
            "tollgate:plugin/types@0.1.0": crate::wit::host::tollgate::plugin::types,
            "tollgate:plugin/llm-types@0.1.0": crate::wit::host::tollgate::plugin::llm_types,
        },
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
        pub_export_macro: true,
        export_macro_name: "export_settlement",
    });
}

pub mod endpoint {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tollgate:sdk;
            world endpoint { export wasi:http/incoming-handler@0.2.12; }
        ",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_endpoint",
    });
}
