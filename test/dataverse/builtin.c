/*
 * builtin.c - system tables that every organisation has
 *
 * A table file of the same name in the metadata directory replaces these.
 */
#include "metadata.h"

const char *const sim_builtin_tables[] =
{
	"table organization set=organizations id=organizationid name=name schema=Organization owner=none bulk=none\n"
	"string name 160 readonly\n"
	"integer maxuploadfilesize 0 131072000\n"
	"lookup basecurrencyid transactioncurrency:basecurrencyid\n",

	"table businessunit set=businessunits id=businessunitid name=name schema=BusinessUnit owner=business bulk=none\n"
	"string name 160 systemrequired\n"
	"string divisionname 100\n"
	"boolean isdisabled readonly\n"
	"lookup parentbusinessunitid businessunit:parentbusinessunitid\n",

	"table systemuser set=systemusers id=systemuserid name=fullname schema=SystemUser owner=business bulk=none\n"
	"string fullname 200\n"
	"string firstname 256\n"
	"string lastname 256\n"
	"string domainname 1024\n"
	"string internalemailaddress 100\n"
	"string employeeid 100\n"
	"guid applicationid\n"
	"guid azureactivedirectoryobjectid readonly\n"
	"boolean isdisabled\n"
	"choice accessmode 0=\"Read-Write\" 1=\"Administrative\" 2=\"Read\" 3=\"Support User\" 4=\"Non-interactive\" "
	"5=\"Delegated Admin\"\n"
	"lookup businessunitid businessunit:businessunitid\n"
	"nn systemuserroles_association systemuser systemuserroles_association role systemuserroles_association "
	"intersect=systemuserroles\n",

	"table team set=teams id=teamid name=name schema=Team owner=business bulk=none\n"
	"string name 160 systemrequired\n"
	"choice teamtype 0=\"Owner\" 1=\"Access\" 2=\"Security Group\" 3=\"Office Group\"\n"
	"boolean isdefault readonly\n"
	"string description 2000\n"
	"lookup businessunitid businessunit:businessunitid\n",

	"table role set=roles id=roleid name=name schema=Role owner=business bulk=none\n"
	"string name 100\n"
	"lookup businessunitid businessunit:businessunitid\n",

	"table transactioncurrency set=transactioncurrencies id=transactioncurrencyid name=currencyname "
	"schema=TransactionCurrency owner=organization bulk=none\n"
	"string currencyname 100 systemrequired\n"
	"string isocurrencycode 5 systemrequired\n"
	"string currencysymbol 13\n"
	"integer currencyprecision 0 10\n"
	"decimal exchangerate 0.0000000001 100000000000 precision=10\n"
	"state statecode 0=\"Active\" 1=\"Inactive\"\n"
	"status statuscode 1=\"Active\":0 2=\"Inactive\":1\n",

	"table activityparty set=activityparties id=activitypartyid name=partyidname schema=ActivityParty owner=none bulk=none\n"
	"string addressused 320\n"
	"integer participationtypemask 0 11\n"
	"lookup activityid activitypointer:activityid_activitypointer\n"
	"lookup partyid account:partyid_account contact:partyid_contact lead:partyid_lead systemuser:partyid_systemuser "
	"queue:partyid_queue incident:partyid_incident opportunity:partyid_opportunity\n",

	"table opportunityclose set=opportunitycloses id=activityid name=subject schema=OpportunityClose owner=user bulk=none "
	"activity\n"
	"string subject 200\n"
	"memo description 2000\n"
	"money actualrevenue 0 100000000000 precision=2\n"
	"date actualend userlocal\n"
	"lookup opportunityid opportunity:opportunityid\n"
	"lookup transactioncurrencyid transactioncurrency:transactioncurrencyid\n"
	"state statecode 0=\"Open\" 1=\"Completed\" 2=\"Canceled\"\n"
	"status statuscode 1=\"Open\":0 2=\"Completed\":1 3=\"Canceled\":2\n",

	"table incidentresolution set=incidentresolutions id=activityid name=subject schema=IncidentResolution owner=user bulk=none "
	"activity\n"
	"string subject 200\n"
	"memo description 2000\n"
	"integer timespent 0 2147483647\n"
	"lookup incidentid incident:incidentid\n"
	"state statecode 0=\"Open\" 1=\"Completed\" 2=\"Canceled\"\n"
	"status statuscode 1=\"Open\":0 2=\"Closed\":1 3=\"Canceled\":2\n",

	"table quoteclose set=quotecloses id=activityid name=subject schema=QuoteClose owner=user bulk=none activity\n"
	"string subject 200\n"
	"memo description 2000\n"
	"string quotenumber 100\n"
	"integer revision 0 2147483647\n"
	"date actualend userlocal\n"
	"lookup quoteid quote:quoteid\n"
	"state statecode 0=\"Open\" 1=\"Completed\" 2=\"Canceled\"\n"
	"status statuscode 1=\"Open\":0 2=\"Completed\":1 3=\"Canceled\":2\n",

	"table orderclose set=ordercloses id=activityid name=subject schema=OrderClose owner=user bulk=none activity\n"
	"string subject 200\n"
	"memo description 2000\n"
	"string ordernumber 100\n"
	"integer revision 0 2147483647\n"
	"date actualend userlocal\n"
	"lookup salesorderid salesorder:salesorderid\n"
	"state statecode 0=\"Open\" 1=\"Completed\" 2=\"Canceled\"\n"
	"status statuscode 1=\"Open\":0 2=\"Completed\":1 3=\"Canceled\":2\n",

	NULL
};
