"""The gateway: HL7 v2 in and out, journaled before it is answered, mapped to FHIR after."""
